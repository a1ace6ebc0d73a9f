/** Elementwise operators, random numbers and sums. Conventions: ../ops.ts. */
import type { OpSpec } from "./spec.ts";

export const elementwiseOps = {
  fill: {
    summary: "y[i] = value. Any dtype.",
    tensors: { y: "write" },
    integers: ["numElements"],
    floats: ["value"],
  },
  convert: {
    summary: "y[i] = x[i] in y's dtype (f32, bf16, f16, f64 in any combination; equal dtypes copy).",
    tensors: { x: "read", y: "write" },
    integers: ["numElements"],
    floats: [],
  },
  add: {
    summary: "y[i] = a[i] + b[i]; y may be a or b.",
    tensors: { a: "read", b: "read", y: "write" },
    integers: ["numElements"],
    floats: [],
  },
  axpby: {
    summary: "y[i] = alpha * x[i] + beta * y[i]; with beta = 0, y is not read.",
    tensors: { x: "read", y: "update" },
    integers: ["numElements"],
    floats: ["alpha", "beta"],
  },
  scaleRows: {
    summary: "y[row] = rowScales[row] * x[row]; x, y (N, C), rowScales f32 (N). y may be x.",
    tensors: { x: "read", rowScales: "read", y: "write" },
    integers: ["numRows", "width"],
    floats: [],
  },
  randomNormal: {
    summary:
      "y[i] = mean + std * z[i]. Philox 4x32-10 block (seed, counter + floor(i / 4)) gives four words b; pair p = (i mod 4) >> 1: " +
      "u = (b[2p] >> 8) * 2^-24, w = (b[2p + 1] >> 8) * 2^-24, radius = sqrt(-2 ln(1 - u)), z = radius * cos(2 pi w) for even i, sin for odd.",
    tensors: { y: "write" },
    integers: ["numElements", "seed", "counter"],
    floats: ["mean", "std"],
  },
  sum: {
    summary: "accumulator[0] += sum of x[i]; accumulator is f64 (1).",
    tensors: { x: "read", accumulator: "update" },
    integers: ["numElements"],
    floats: [],
  },
  columnSum: {
    summary: "y[c] = beta * y[c] + sum over rows of x[row, c]; x (N, C), y (C).",
    tensors: { x: "read", y: "update" },
    integers: ["numRows", "width"],
    floats: ["beta"],
  },
} as const satisfies Record<string, OpSpec>;
