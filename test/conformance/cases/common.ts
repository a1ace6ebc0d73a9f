/** What the cases of several families share. */
import type { FloatDtype } from "../../../src/base/index.ts";

export type TensorDtype = "f32" | "bf16";

/** What values flow in. */
export const floats: readonly TensorDtype[] = ["f32", "bf16"];
/** dtypes of values and of what their gradients are added to. */
export const floatPairs: readonly (readonly [TensorDtype, TensorDtype])[] = [
  ["f32", "f32"],
  ["bf16", "bf16"],
  ["bf16", "f32"],
];
/** Empty, single, shorter than a vector, odd, and longer than a block. */
export const lengths: readonly number[] = [0, 1, 7, 4099];

/** What intermediate results of attention may be rounded to, for values of a dtype. */
export function intermediateOf(dtype: TensorDtype): FloatDtype {
  return dtype;
}
