/**
 * Adapters as part of the weights: W' = W + scale B A (LoRA), the same with rows at their trained norm (DoRA), and rows or columns times their
 * factors (IA3). The products are the device's, in f32; what is left over is done on the host, a module at a time.
 */
import { ConfigError } from "../../base/index.ts";
import { matmulInto } from "../../tensor/index.ts";
import type { Context, Tensor } from "../../tensor/index.ts";
import type { Decoder } from "../common/decoder.ts";
import { layerNames } from "../common/specs.ts";
import type { Adapter } from "./adapter.ts";
import { DoraAdapter, magnitudeName } from "./dora.ts";
import { factorName, Ia3Adapter } from "./ia3.ts";
import { LoraAdapter, lowRankA, lowRankB } from "./lora.ts";
import type { LoraModule } from "./lora.ts";
import type { TargetModule } from "./targets.ts";

/**
 * Writes the adapter into the decoder's weights, which then need it no more. Throws ConfigError for methods that cannot, for quantised
 * weights, which would lose most of it to their rounding, and for mapped ones, which can only be read.
 */
export function mergeAdapter(context: Context, decoder: Decoder, adapter: Adapter): void {
  const [quantised] = decoder.quantised.values();
  if (quantised !== undefined)
    throw new ConfigError("adapter", `expected weights in floats to merge into, got ${quantised.format}`, {
      hint: "open the model without quantising it, merge, and quantise the result",
    });
  decoder.expectWritable();
  const weightOf = ({ place, outputStart, numOutputs }: TargetModule): Tensor =>
    decoder.parameters.get(layerNames(place.layer)[place.site]).rows(outputStart, outputStart + numOutputs);
  if (adapter instanceof LoraAdapter || adapter instanceof DoraAdapter) {
    for (const { modules } of adapter.places)
      for (const module of modules) {
        using weight = weightOf(module);
        mergeLowRank(context, weight, { adapter, module });
      }
  } else if (adapter instanceof Ia3Adapter) {
    for (const module of adapter.modules) {
      using weight = weightOf(module);
      const factors = adapter.parameters.get(factorName(module)).toArray();
      const { numInputs, isFeedforward } = module;
      const values = weight.toArray();
      weight.set(
        values.map((value, i) => value * factors[isFeedforward ? i % numInputs : Math.floor(i / numInputs)]),
      );
      if (!isFeedforward) scaleBias(decoder, module, factors);
    }
  } else {
    throw new ConfigError("adapter", `expected lora, dora or ia3 to merge, got ${adapter.config.method}`, {
      hint: "the model's shape has no place for it; use it as an adapter",
    });
  }
}

/** IA3 scales what a module gives, its bias included. */
function scaleBias(
  decoder: Decoder,
  { place, outputStart, numOutputs }: TargetModule,
  factors: Float64Array,
): void {
  const bias = decoder.parameters.find(layerNames(place.layer)[`${place.site}Bias`]);
  using part = bias?.rows(outputStart, outputStart + numOutputs);
  part?.set(part.toArray().map((value, i) => value * factors[i]));
}

function mergeLowRank(
  context: Context,
  weight: Tensor,
  { adapter, module }: { adapter: LoraAdapter | DoraAdapter; module: LoraModule },
): void {
  const { numOutputs, numInputs, rank, rankStart, scale, place } = module;
  const { parameters } = adapter;
  context.scope(() => {
    const wide = (x: Tensor): Tensor => {
      const y = context.empty(x.shape, "f32");
      context.device.run("convert", { x, y, numElements: y.numElements });
      return y;
    };
    const a = context.adopt(parameters.get(lowRankA(place)).rows(rankStart, rankStart + rank));
    const changed = wide(weight);
    matmulInto(
      context,
      { a: wide(parameters.get(lowRankB(module))), b: wide(a), c: changed },
      { m: numOutputs, n: numInputs, k: rank, alpha: scale, beta: 1 },
    );
    if (adapter instanceof DoraAdapter) {
      const magnitudes = parameters.get(magnitudeName(module)).toArray();
      scaleRows(changed, magnitudes, numInputs);
    }
    context.device.run("convert", { x: changed, y: weight, numElements: weight.numElements });
  });
}

/** Gives each row the norm `magnitudes[row]`. */
function scaleRows(matrix: Tensor, magnitudes: Float64Array, width: number): void {
  const values = matrix.toArray();
  for (const [row, magnitude] of magnitudes.entries()) {
    const part = values.subarray(row * width, (row + 1) * width);
    const norm = Math.sqrt(part.reduce((total, value) => total + value * value, 0));
    for (let i = 0; i < width; i++) part[i] *= magnitude / norm;
  }
  matrix.set(values);
}
