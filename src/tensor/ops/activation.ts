/** Pointwise activations, plain (squared ReLU: So et al., "Primer", 2021) and gated (SwiGLU: Shazeer, 2020). */
import { ShapeError } from "../../base/index.ts";
import { activationKinds } from "../../device/index.ts";
import type { Activation } from "../../device/index.ts";
import type { Context } from "../context.ts";
import { recipeFrom } from "../saved.ts";
import { record, reuse } from "../tape.ts";
import type { Tensor } from "../tensor.ts";

/**
 * f(x), any shape. With the recompute policy "norm-activation" the result is made again from x, which is kept anyway, in the backward
 * pass of whoever needs it.
 */
export function activation(context: Context, x: Tensor, name: Activation): Tensor {
  const kind = activationKinds[name];
  const { numElements } = x;
  const y = context.empty(x.shape, x.dtype);
  context.device.run("activationForward", { x, y, numElements, kind });
  const isRecorded = record(context, [y], {
    name,
    inputs: [x],
    save: [x],
    backward: ([dy], [saved]) => {
      if (dy === undefined) return [];
      const dx = reuse(context, dy);
      context.device.run("activationBackward", { x: saved.get(), dy, dx, numElements, kind });
      return [dx];
    },
  });
  if (isRecorded && context.tape?.recompute === "norm-activation") {
    y.recipe = recipeFrom([x], ([kept]) => activation(context, kept, name));
  }
  return y;
}

/** f(x[:, :F]) * x[:, F:]; x (N, 2F) -> (N, F). Recomputed as `activation` is. Throws ShapeError. */
export function gatedActivation(context: Context, x: Tensor, name: Activation): Tensor {
  if (x.width % 2 !== 0) throw new ShapeError("gatedActivation", `expected an even width, got ${x.width}`);
  const kind = activationKinds[name];
  const { numRows } = x;
  const width = x.width / 2;
  const y = context.empty([numRows, width], x.dtype);
  context.device.run("gatedActivationForward", { x, y, numRows, width, kind });
  const isRecorded = record(context, [y], {
    name: `gated ${name}`,
    inputs: [x],
    save: [x],
    backward: ([dy], [saved]) => {
      if (dy === undefined) return [];
      const dx = context.empty([numRows, 2 * width], x.dtype);
      context.device.run("gatedActivationBackward", { x: saved.get(), dy, dx, numRows, width, kind });
      return [dx];
    },
  });
  if (isRecorded && context.tape?.recompute === "norm-activation") {
    y.recipe = recipeFrom([x], ([kept]) => gatedActivation(context, kept, name));
  }
  return y;
}
