/** Linear layers: y = x W^T + b, with the weight stored (F, C) as checkpoints have it. */
import { formatShape, invariant, ShapeError } from "../../base/index.ts";
import type { Dtype, Shape } from "../../base/index.ts";
import type { TensorArgument } from "../../device/index.ts";
import type { Context } from "../context.ts";
import { Parameter } from "../parameter.ts";
import type { RowCodes } from "../rowCodes.ts";
import { needsGradient, record } from "../tape.ts";
import { Tensor } from "../tensor.ts";

export interface MatmulOptions {
  m: number;
  n: number;
  k: number;
  transposeA?: boolean;
  transposeB?: boolean;
  alpha?: number;
  beta?: number;
  bias?: Tensor | undefined;
}

/** c = alpha op(a) op(b) + beta c + bias over contiguous operands: the operator `matmul` with its strides filled in. */
export function matmulInto(
  context: Context,
  { a, b, c }: { a: TensorArgument; b: TensorArgument; c: TensorArgument },
  { m, n, k, transposeA = false, transposeB = false, alpha = 1, beta = 0, bias }: MatmulOptions,
): void {
  context.device.run("matmul", {
    a,
    b,
    c,
    bias,
    m,
    n,
    k,
    lda: transposeA ? m : k,
    ldb: transposeB ? k : n,
    ldc: n,
    transposeA: Number(transposeA),
    transposeB: Number(transposeB),
    alpha,
    beta,
  });
}

/** A frozen weight in a form of its own (quantised): the two products that a linear layer needs of it. */
export interface FrozenWeight {
  /** (F, C) */
  readonly shape: Shape;
  /** y (N, F) = x (N, C) W^T + bias; assigned. */
  multiply(context: Context, operands: { x: Tensor; y: Tensor; bias: Tensor | undefined }): void;
  /** y (N, F) = rows (N, C) W^T + bias from the rows' codes; assigned. Absent where rows cannot be given as codes. */
  multiplyCodes?(context: Context, operands: { codes: RowCodes; y: Tensor; bias: Tensor | undefined }): void;
  /** dx (N, C) = dy (N, F) W; assigned. */
  multiplyTransposed(context: Context, operands: { dy: Tensor; dx: Tensor }): void;
}

/** What a linear layer may multiply by: a matrix (F, C), or a frozen weight in a form of its own. */
export type LinearWeight = Tensor | FrozenWeight;

export interface LinearOptions {
  bias?: Tensor | undefined;
  /** dtype of y; x's by default. */
  outputDtype?: Dtype;
}

/** x (N, C), weight (F, C), bias (F) -> (N, F). A frozen weight costs no weight gradient. Throws ShapeError. */
export function linear(
  context: Context,
  x: Tensor,
  { weight, bias, outputDtype = x.dtype }: LinearOptions & { weight: LinearWeight },
): Tensor {
  const [widthOut, widthIn] = weight.shape;
  if (weight.shape.length !== 2 || x.width !== widthIn) {
    throw new ShapeError(
      "linear",
      `expected x of width ${widthIn} for weight ${formatShape(weight.shape)}, got ${formatShape(x.shape)}`,
    );
  }
  const { numRows } = x;
  const y = context.empty([numRows, widthOut], outputDtype);
  multiplyByWeight(context, { x, y }, { weight, bias });

  // x is needed for the weight gradient alone.
  const dense = weight instanceof Tensor ? weight : undefined;
  const keepsInput = needsGradient(dense);
  record(context, [y], {
    name: "linear",
    inputs: [x, dense, bias],
    save: [...(dense === undefined ? [] : [dense]), ...(keepsInput ? [x] : [])],
    backward: ([dy], saved) => {
      if (dy === undefined) return [];
      if (weight instanceof Parameter && weight.isTrainable) {
        const { gradient, beta } = weight.gradientTarget();
        const operands = { a: dy, b: saved[1].get(), c: gradient };
        matmulInto(context, operands, { m: widthOut, n: widthIn, k: numRows, transposeA: true, beta });
      }
      if (bias instanceof Parameter && bias.isTrainable) {
        const { gradient, beta } = bias.gradientTarget();
        context.device.run("columnSum", { x: dy, y: gradient, numRows, width: widthOut, beta });
      }
      if (x.variable === undefined) return [];
      const dx = context.empty([numRows, widthIn], x.dtype);
      multiplyByTransposedWeight(context, { dy, dx }, weight instanceof Tensor ? saved[0].get() : weight);
      return [dx];
    },
  });
  return y;
}

/** Whether a product without gradients may be given its rows' codes alone. */
export function takesCodes(context: Context, weight: LinearWeight): boolean {
  return context.tape === undefined && !(weight instanceof Tensor) && weight.multiplyCodes !== undefined;
}

/** As `linear`, from codes (N, C) and outside the tape; y (N, F) in `outputDtype`. For weights that take codes. */
export function linearOfCodes(
  context: Context,
  codes: RowCodes,
  { weight, bias, outputDtype }: { weight: LinearWeight; bias?: Tensor | undefined; outputDtype: Dtype },
): Tensor {
  invariant(!(weight instanceof Tensor) && weight.multiplyCodes !== undefined, "a weight that takes codes");
  const y = context.empty([codes.codes.numRows, weight.shape[0]], outputDtype);
  weight.multiplyCodes(context, { codes, y, bias });
  return y;
}

/** y = x W^T + bias, outside the tape; y (N, F) assigned. */
export function multiplyByWeight(
  context: Context,
  { x, y }: { x: Tensor; y: Tensor },
  { weight, bias }: { weight: LinearWeight; bias?: Tensor | undefined },
): void {
  const [n, k] = weight.shape;
  if (weight instanceof Tensor) {
    matmulInto(context, { a: x, b: weight, c: y }, { m: x.numRows, n, k, transposeB: true, bias });
  } else {
    weight.multiply(context, { x, y, bias });
  }
}

/** dx = dy W, outside the tape; dx (N, C) assigned. */
export function multiplyByTransposedWeight(
  context: Context,
  { dy, dx }: { dy: Tensor; dx: Tensor },
  weight: LinearWeight,
): void {
  const [k, n] = weight.shape;
  if (weight instanceof Tensor) matmulInto(context, { a: dy, b: weight, c: dx }, { m: dy.numRows, n, k });
  else weight.multiplyTransposed(context, { dy, dx });
}
