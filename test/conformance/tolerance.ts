/**
 * How far a result may lie from the reference: the one place. The allowance of an element is
 *
 *   eps(dtype) |expected|                       a rounding that falls to the other side
 *   + 4 eps(f32) sqrt(length) scale             float32 arithmetic over `length` terms of random rounding error (`terms` where larger)
 *   + 2 eps(bf16) scale                         where intermediates may be bf16 (attention in bf16: softmax weights, their gradients)
 *   + 40 2^-13 scale                            where tensor cores may cut sums off (`isCutOff`: products of 8-bit codes)
 *
 * Adding n terms of size r one after another in float32 errs by about 0.35 eps sqrt(n) (r sqrt(n)) (Higham, "Accuracy and Stability of
 * Numerical Algorithms", chapter 4), and `scale`, the size of the sum, is about r sqrt(n): the factor 4 covers the largest of
 * millions of elements, and not a sum in bf16 or TF32.
 *
 * Hopper's tensor cores add 32 products of 8-bit numbers and the sum so far after they have cut each off below 2^-13 of the largest of them
 * (DeepSeek-V3 technical report, 3.3.2: about 14 bits). 33 cuts of up to one such unit, equally likely anywhere below it, scatter by
 * sqrt(33 / 12) = 1.7 units, and shift by half a unit each where signs agree, 3.3 together where they do not. With terms of size r a sum that
 * is kept in the tensor cores over 256 products, as ours are, has 16 r, so a unit is 16 r 2^-13 and a step errs by 53 r 2^-13; sqrt(length / 32)
 * steps err by 9.3 2^-13 of the sum's size r sqrt(length). Again a factor of 4 for the largest of many. Sums that such a sum of whole
 * numbers below 2^13 has are exact: cases of those need no allowance.
 */
import { epsilons } from "../../src/base/index.ts";
import type { FloatDtype } from "../../src/base/index.ts";

const arithmeticFactor = 4;
const intermediateFactor = 2;
const cutOffFactor = 40 * 2 ** -13;

export interface Closeness {
  /** Terms that are added up for one result. */
  readonly length?: number;
  /** Size of what rounding errors are relative to; the root mean square of the row by default. */
  readonly scale?: number;
  /** Size of terms that may cancel to much less than the row's size, such as the gradient of a softmax over one key. */
  readonly terms?: number;
  /** dtype that intermediate results may be rounded to; f32 by default. */
  readonly intermediate?: FloatDtype;
  /** Whether tensor cores of 8-bit numbers may have added the terms up. */
  readonly isCutOff?: boolean;
}

/** The allowance of an element stored as `dtype`, in a row of root mean square `rowSize`. */
export function allowanceOf(
  expected: number,
  { dtype, closeness, rowSize }: { dtype: FloatDtype; closeness: Closeness; rowSize: number },
): number {
  const { length = 1, scale = rowSize, terms = 0, intermediate = "f32", isCutOff = false } = closeness;
  const size = Math.max(Math.abs(expected), scale);
  const rounding = epsilons[dtype] * Math.abs(expected) + smallest[dtype];
  const arithmetic = arithmeticFactor * epsilons.f32 * Math.sqrt(Math.max(1, length)) * Math.max(size, terms);
  const intermediates = intermediate === "f32" ? 0 : intermediateFactor * epsilons[intermediate] * size;
  return rounding + arithmetic + intermediates + (isCutOff ? cutOffFactor * size : 0);
}

/** Steps between subnormal numbers: results below the normal range round by these. */
const smallest: Readonly<Record<FloatDtype, number>> = {
  f32: 2 ** -149,
  bf16: 2 ** -133,
  f16: 2 ** -24,
  f64: 2 ** -1074,
};
