/** Judging a result against the reference's: where it is farthest from what is allowed, and how alike the two are in all. */
import type { FloatDtype } from "../../src/base/index.ts";
import type { Operand } from "./case.ts";
import { allowanceOf, type Closeness } from "./tolerance.ts";

export interface Judgement {
  /** Largest error as a share of what is allowed; above 1 fails. */
  readonly worst: number;
  /** What is wrong; undefined for a pass. */
  readonly message: string | undefined;
}

/** `actual` and `expected` are the operand's values (numRows, width). */
export function judge(operand: Operand, actual: Float64Array, expected: Float64Array): Judgement {
  const { check } = operand;
  switch (check.kind) {
    case "exact":
      return judgeExact(operand, actual, expected);
    case "close":
      return judgeClose(operand, { actual, expected, closeness: check });
    case "judge": {
      const message = check.judge(actual, expected);
      return { worst: message === undefined ? 0 : Infinity, message };
    }
  }
}

/** The same number: NaN with NaN, and zeros by their sign. */
function judgeExact({ width }: Operand, actual: Float64Array, expected: Float64Array): Judgement {
  const index = actual.findIndex((value, i) => !Object.is(value, expected[i]));
  if (index === -1) return { worst: 0, message: undefined };
  const numWrong = actual.reduce((count, value, i) => count + Number(!Object.is(value, expected[i])), 0);
  return {
    worst: Infinity,
    message: `${place(index, width)} is ${actual[index]}, expected exactly ${expected[index]}; ${numWrong} of ${actual.length} differ`,
  };
}

function judgeClose(
  { dtype, numRows, width }: Operand,
  { actual, expected, closeness }: { actual: Float64Array; expected: Float64Array; closeness: Closeness },
): Judgement {
  let worst = 0;
  let index = 0;
  for (let row = 0; row < numRows; row++) {
    const rowSize = rootMeanSquare(expected.subarray(row * width, (row + 1) * width));
    for (let i = row * width; i < (row + 1) * width; i++) {
      const share = shareOf(actual[i], expected[i], { dtype: asFloat(dtype), closeness, rowSize });
      if (share > worst) {
        worst = share;
        index = i;
      }
    }
  }
  if (worst <= 1) return { worst, message: undefined };
  const percent = Number.isFinite(worst)
    ? `${(100 * worst).toPrecision(4)} % of the allowance`
    : "not comparable";
  return {
    worst,
    message: `${place(index, width)} is ${actual[index]}, expected ${expected[index]}: ${percent}; cosine ${cosine(actual, expected).toFixed(7)}`,
  };
}

/** NaN is never equal; infinities are when their signs are. */
function shareOf(
  actual: number,
  expected: number,
  options: { dtype: FloatDtype; closeness: Closeness; rowSize: number },
): number {
  if (actual === expected) return 0;
  if (!Number.isFinite(actual) || !Number.isFinite(expected)) return Infinity;
  return Math.abs(actual - expected) / allowanceOf(expected, options);
}

function place(index: number, width: number): string {
  return `element ${index} (row ${Math.floor(index / width)}, column ${index % width})`;
}

function rootMeanSquare(values: Float64Array): number {
  let total = 0;
  let count = 0;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    total += value * value;
    count++;
  }
  return Math.sqrt(total / Math.max(1, count));
}

function cosine(a: Float64Array, b: Float64Array): number {
  let product = 0;
  let aSquares = 0;
  let bSquares = 0;
  for (let i = 0; i < a.length; i++) {
    product += a[i] * b[i];
    aSquares += a[i] * a[i];
    bSquares += b[i] * b[i];
  }
  return product / Math.sqrt(aSquares * bSquares);
}

function asFloat(dtype: Operand["dtype"]): FloatDtype {
  if (dtype === "f32" || dtype === "bf16" || dtype === "f16" || dtype === "f64") return dtype;
  throw new TypeError(`a tolerance for ${dtype}`);
}
