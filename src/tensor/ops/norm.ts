/**
 * Normalisation of rows, fused with the residual addition before it: LayerNorm (Ba et al., 2016), its zero-centred form
 * "layernorm1p" (gain stored minus one: gainOffset = 1), and RMSNorm (Zhang and Sennrich, 2019).
 */
import { expectShape } from "../../base/index.ts";
import type { Context } from "../context.ts";
import { Parameter } from "../parameter.ts";
import { emptyRowCodes } from "../rowCodes.ts";
import type { RowCodes } from "../rowCodes.ts";
import { recipeFrom } from "../saved.ts";
import { record, reuse } from "../tape.ts";
import type { Tensor } from "../tensor.ts";

export interface NormWeights {
  kind: "layer-norm" | "rms-norm";
  gain: Tensor;
  bias?: Tensor | undefined;
  eps: number;
  /** 1 where the stored gain is the deviation from one. */
  gainOffset: 0 | 1;
}

export interface NormResult {
  /** The normalised rows, (N, C). */
  y: Tensor;
  /** x + addend, (N, C): the residual stream after this point. x itself where there is no addend. */
  sum: Tensor;
  /** Of y, where they were asked for. */
  codes: RowCodes | undefined;
}

export interface NormOptions {
  addend?: Tensor | undefined;
  weights: NormWeights;
  /** Also gives y in E4M3. */
  withCodes?: boolean;
}

/**
 * norm(x + addend) and the sum; x, addend (N, C); gain, bias (C). With the recompute policy "norm-activation", y is not kept for the
 * backward pass but made again from the sum. Throws ShapeError.
 */
export function normalise(
  context: Context,
  x: Tensor,
  { addend, weights, withCodes = false }: NormOptions,
): NormResult {
  const { gain, bias, eps, gainOffset, kind } = weights;
  const width = x.width;
  expectShape(kind, bias === undefined ? { gain } : { gain, bias }, [width]);
  const { numRows } = x;
  const isLayerNorm = kind === "layer-norm";
  const sum = addend === undefined ? x : context.empty(x.shape, x.dtype);
  const y = context.empty(x.shape, x.dtype);
  const keepsStatistics = context.tape !== undefined;
  const mean = keepsStatistics && isLayerNorm ? context.empty([numRows], "f32") : undefined;
  const rstd = keepsStatistics ? context.empty([numRows], "f32") : undefined;
  const codes = withCodes ? emptyRowCodes(context, numRows, width) : undefined;
  const results = { sum: addend && sum, y, rstd, codes: codes?.codes, scales: codes?.scales };
  const common = { x, addend, gain, ...results, numRows, width, eps, gainOffset };
  if (isLayerNorm) context.device.run("layerNormForward", { ...common, bias, mean });
  else context.device.run("rmsNormForward", common);
  if (rstd === undefined) return { y, sum, codes };

  const isRecorded = record(context, addend === undefined ? [y] : [y, sum], {
    name: kind,
    inputs: [x, addend, gain, bias],
    save: mean === undefined ? [sum, gain, rstd] : [sum, gain, rstd, mean],
    backward: ([dy, dsum], saved) => {
      const [savedSum, savedGain, savedRstd] = saved;
      const dgain = gain instanceof Parameter && gain.isTrainable ? gain.gradientSum() : undefined;
      const dbias = bias instanceof Parameter && bias.isTrainable ? bias.gradientSum() : undefined;
      if (dy === undefined) return [dsum, dsum];
      const dx = reuse(context, dy);
      const gradients = {
        dy,
        x: savedSum.get(),
        gain: savedGain.get(),
        rstd: savedRstd.get(),
        dsum,
        dx,
        dgain,
        numRows,
        width,
        gainOffset,
      };
      if (isLayerNorm) context.device.run("layerNormBackward", { ...gradients, mean: saved[3].get(), dbias });
      else context.device.run("rmsNormBackward", gradients);
      return [dx, addend === undefined ? undefined : dx];
    },
  });
  if (isRecorded && context.tape?.recompute === "norm-activation") {
    y.recipe = recipeFrom([sum], ([keptSum]) => normalise(context, keptSum, { weights }).y);
  }
  return { y, sum, codes };
}
