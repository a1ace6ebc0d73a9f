/**
 * What a conformance case is: an operator with its numbers, and for each tensor its contents, its place in memory and how its
 * result is judged. Building a case is cheap; its data are made when it runs.
 */
import type { Dtype } from "../../src/base/index.ts";
import type { OpArguments, OpName, TensorArgument } from "../../src/device/index.ts";
import { DataSource, type Values } from "./random.ts";
import type { Closeness } from "./tolerance.ts";

/** How a result is judged: bit for bit, within a tolerance, or by a judge that says what is wrong. */
export type Check =
  | { readonly kind: "exact" }
  | ({ readonly kind: "close" } & Closeness)
  | {
      readonly kind: "judge";
      readonly judge: (actual: Float64Array, expected: Float64Array) => string | undefined;
    };

export interface Operand {
  readonly dtype: Dtype;
  readonly numRows: number;
  readonly width: number;
  /** Elements from row to row; what lies between must stay untouched. */
  readonly stride: number;
  /** (numRows, width) values before the run; poison without. */
  readonly values?: Values;
  /** Elements by which it begins past a 256-byte boundary. */
  readonly shift: number;
  /** The tensor whose memory it shares. */
  readonly sameAs?: string;
  readonly check: Check;
}

export interface OperandOptions {
  width?: number;
  stride?: number;
  values?: Values;
  shift?: number;
  sameAs?: string | undefined;
  check?: Check;
}

export const exact: Check = { kind: "exact" };

export function close(closeness: Closeness = {}): Check {
  return { kind: "close", ...closeness };
}

/** A tensor of `numRows` rows; of one row of that many elements when no width is given. */
export function operand(dtype: Dtype, length: number, options: OperandOptions = {}): Operand {
  const { stride, shift = 0, check = exact, sameAs, values } = options;
  const [numRows, width] = options.width === undefined ? [1, length] : [length, options.width];
  return {
    dtype,
    numRows,
    width,
    stride: stride ?? width,
    shift,
    check,
    ...(values === undefined ? {} : { values }),
    ...(sameAs === undefined ? {} : { sameAs }),
  };
}

/** A tensor of whole numbers. */
export function integers(dtype: "i32" | "i64", values: ArrayLike<number>): Operand {
  return operand(dtype, values.length, { values: () => Float64Array.from(values) });
}

/** A tensor of given numbers. */
export function numbers(dtype: Dtype, values: ArrayLike<number>): Operand {
  return operand(dtype, values.length, { values: () => Float64Array.from(values) });
}

type WithOperands<Argument> = Argument extends TensorArgument ? Operand : Argument;
/** The arguments of an operator with operands in the place of tensors. */
export type Problem<Name extends OpName> = {
  readonly [Argument in keyof OpArguments<Name>]: WithOperands<OpArguments<Name>[Argument]>;
};

/** A problem of any operator, as the runner sees it. */
export type AnyProblem = Readonly<Record<string, Operand | number | undefined>>;

export interface ConformanceCase {
  readonly op: OpName;
  /** What is special about it; unique within the operator. */
  readonly label: string;
  build(): AnyProblem;
}

export function conformanceCase<Name extends OpName>(
  op: Name,
  label: string,
  build: (data: DataSource) => Problem<Name>,
): ConformanceCase {
  return { op, label, build: () => build(new DataSource(`${op} ${label}`)) };
}

/** The operands of a problem by name, those left out omitted. */
export function operandsOf(problem: AnyProblem): [string, Operand][] {
  return Object.entries(problem).filter((entry): entry is [string, Operand] => typeof entry[1] === "object");
}

/** The dtypes of a problem's operands by name. */
export function dtypesOf(problem: AnyProblem): Record<string, Dtype> {
  return Object.fromEntries(operandsOf(problem).map(([name, { dtype }]) => [name, dtype]));
}

/** Elements of all operands together. */
export function numElementsOf(problem: AnyProblem): number {
  return operandsOf(problem).reduce((total, [, { numRows, stride }]) => total + numRows * stride, 0);
}
