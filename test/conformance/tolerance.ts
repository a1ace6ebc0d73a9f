/**
 * How far a result may lie from the reference: the one place. The allowance of an element is
 *
 *   eps(dtype) |expected|                       a rounding that falls to the other side
 *   + 4 eps(f32) sqrt(length) scale             float32 arithmetic over `length` terms of random rounding error (`terms` where larger)
 *   + 2 eps(bf16) scale                         where intermediates may be bf16 (attention in bf16: softmax weights, their gradients)
 *
 * Adding n terms of size r one after another in float32 errs by about 0.35 eps sqrt(n) (r sqrt(n)) (Higham, "Accuracy and Stability of
 * Numerical Algorithms", chapter 4), and `scale`, the size of the sum, is about r sqrt(n): the factor 4 covers the largest of
 * millions of elements, and not a sum in bf16 or TF32.
 */
import { epsilons } from "../../src/base/index.ts";
import type { FloatDtype } from "../../src/base/index.ts";

const arithmeticFactor = 4;
const intermediateFactor = 2;

export interface Closeness {
  /** Terms that are added up for one result. */
  readonly length?: number;
  /** Size of what rounding errors are relative to; the root mean square of the row by default. */
  readonly scale?: number;
  /** Size of terms that may cancel to much less than the row's size, such as the gradient of a softmax over one key. */
  readonly terms?: number;
  /** dtype that intermediate results may be rounded to; f32 by default. */
  readonly intermediate?: FloatDtype;
}

/** The allowance of an element stored as `dtype`, in a row of root mean square `rowSize`. */
export function allowanceOf(
  expected: number,
  { dtype, closeness, rowSize }: { dtype: FloatDtype; closeness: Closeness; rowSize: number },
): number {
  const { length = 1, scale = rowSize, terms = 0, intermediate = "f32" } = closeness;
  const size = Math.max(Math.abs(expected), scale);
  const rounding = epsilons[dtype] * Math.abs(expected) + smallest[dtype];
  const arithmetic = arithmeticFactor * epsilons.f32 * Math.sqrt(Math.max(1, length)) * Math.max(size, terms);
  return (
    rounding + arithmetic + (intermediate === "f32" ? 0 : intermediateFactor * epsilons[intermediate] * size)
  );
}

/** Steps between subnormal numbers: results below the normal range round by these. */
const smallest: Readonly<Record<FloatDtype, number>> = {
  f32: 2 ** -149,
  bf16: 2 ** -133,
  f16: 2 ** -24,
  f64: 2 ** -1074,
};
