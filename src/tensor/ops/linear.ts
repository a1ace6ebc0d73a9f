/** Linear layers: y = x W^T + b, with the weight stored (F, C) as checkpoints have it. */
import { ShapeError, formatShape } from "../../base/index.ts";
import type { Dtype } from "../../base/index.ts";
import type { TensorArgument } from "../../device/index.ts";
import type { Context } from "../context.ts";
import { Parameter } from "../parameter.ts";
import { needsGradient, record } from "../tape.ts";
import type { Tensor } from "../tensor.ts";

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

export interface LinearOptions {
  bias?: Tensor | undefined;
  /** dtype of y; x's by default. */
  outputDtype?: Dtype;
}

/** x (N, C), weight (F, C), bias (F) -> (N, F). A frozen weight costs no weight gradient. Throws ShapeError. */
export function linear(
  context: Context,
  x: Tensor,
  { weight, bias, outputDtype = x.dtype }: LinearOptions & { weight: Tensor },
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
  matmulInto(
    context,
    { a: x, b: weight, c: y },
    { m: numRows, n: widthOut, k: widthIn, transposeB: true, bias },
  );

  // x is needed for the weight gradient alone.
  const keepsInput = needsGradient(weight);
  record(context, [y], {
    name: "linear",
    inputs: [x, weight, bias],
    save: keepsInput ? [weight, x] : [weight],
    backward: ([dy], [savedWeight, savedInput]) => {
      if (dy === undefined) return [];
      if (weight instanceof Parameter && weight.isTrainable) {
        const { gradient, beta } = weight.gradientTarget();
        const operands = { a: dy, b: savedInput.get(), c: gradient };
        matmulInto(context, operands, { m: widthOut, n: widthIn, k: numRows, transposeA: true, beta });
      }
      if (bias instanceof Parameter && bias.isTrainable) {
        const { gradient, beta } = bias.gradientTarget();
        context.device.run("columnSum", { x: dy, y: gradient, numRows, width: widthOut, beta });
      }
      if (x.variable === undefined) return [];
      const dx = context.empty([numRows, widthIn], x.dtype);
      matmulInto(context, { a: dy, b: savedWeight.get(), c: dx }, { m: numRows, n: widthIn, k: widthOut });
      return [dx];
    },
  });
  return y;
}
