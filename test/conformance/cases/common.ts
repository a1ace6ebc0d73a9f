/** What the cases of several families share. */
import { epsilons } from "../../../src/base/index.ts";
import type { FloatDtype } from "../../../src/base/index.ts";
import { e4m3ValueOf } from "../../../src/device/reference/float8.ts";
import { operand, type Operand } from "../case.ts";

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

/**
 * Codes and scales of rows that another operator makes, whose numbers may be rounded to the other side: codes at most one step of E4M3
 * apart, scales as near as the largest number is. test/device/row-codes.test.ts compares their bits with quantiseRows.
 */
export function rowCodeOperands(
  dtype: TensorDtype,
  numRows: number,
  width: number,
): { codes: Operand; scales: Operand } {
  const firstWrong = (
    actual: Float64Array,
    expected: Float64Array,
    isNear: (a: number, b: number) => boolean,
  ): string | undefined => {
    const index = expected.findIndex((value, i) => !isNear(actual[i], value));
    return index < 0 ? undefined : `element ${index} is ${actual[index]}, expected ${expected[index]}`;
  };
  const isNextCode = (a: number, b: number): boolean => {
    const [left, right] = [e4m3ValueOf(a), e4m3ValueOf(b)];
    return Math.abs(left - right) <= Math.max(2 ** -9, Math.max(Math.abs(left), Math.abs(right)) / 8);
  };
  const isNearScale = (a: number, b: number): boolean => Math.abs(a - b) <= (epsilons[dtype] + 1e-5) * b;
  return {
    codes: operand("u8", numRows, {
      width,
      check: { kind: "judge", judge: (a, b) => firstWrong(a, b, isNextCode) },
    }),
    scales: operand("f32", numRows, {
      check: { kind: "judge", judge: (a, b) => firstWrong(a, b, isNearScale) },
    }),
  };
}
