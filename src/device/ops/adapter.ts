/** What adapters need beside matrix products: gradients of low-rank additions, dropout, scaled columns, row norms, virtual tokens. Conventions: ../ops.ts. */
import type { OpSpec } from "./spec.ts";

export const adapterOps = {
  lowRankBackward: {
    summary:
      "dlow = alpha * dy b and db = alpha * dy^T low + beta * db: the gradients of y = alpha * low b^T. dy (N, F), low and dlow (N, R), all of one dtype, " +
      "have row strides; b, of that dtype, and db are (F, R). With beta = 0, db is not read.",
    tensors: { dy: "read", low: "read", b: "read", dlow: "write", db: "update" },
    integers: ["numRows", "width", "rank", "dyRowStride", "lowRowStride", "dlowRowStride"],
    floats: ["alpha", "beta"],
  },
  dropout: {
    summary:
      "y[i] = x[i] / (1 - probability), or 0 where u < probability; u is the uniform number of word i mod 4 of Philox block " +
      "(seed, counter + floor(i / 4)), (word >> 8) * 2^-24. y may be x.",
    tensors: { x: "read", y: "write" },
    integers: ["numElements", "seed", "counter"],
    floats: ["probability"],
  },
  multiply: {
    summary: "y[i] = a[i] * b[i]; y may be a or b.",
    tensors: { a: "read", b: "read", y: "write" },
    integers: ["numElements"],
    floats: [],
  },
  scaleColumns: {
    summary:
      "y[row, c] = x[row, c] * (scale[c] / divisor[c]) (divisor 1 where null); x, y (N, C) with row strides, scale, divisor (C). y may be x.",
    tensors: { x: "read", scale: "read", divisor: "read?", y: "write" },
    integers: ["numRows", "width", "xRowStride", "yRowStride"],
    floats: [],
  },
  columnDot: {
    summary:
      "y[c] = beta * y[c] + (sum over rows of a[row, c] * b[row, c]) / divisor[c] (1 where divisor is null); a, b (N, C) with row strides, divisor, y (C). " +
      "With beta = 0, y is not read.",
    tensors: { a: "read", b: "read", divisor: "read?", y: "update" },
    integers: ["numRows", "width", "aRowStride", "bRowStride"],
    floats: ["beta"],
  },
  rowNorms: {
    summary: "norms[row] = sqrt(sum of x[row, c]^2); x (N, C), norms (N).",
    tensors: { x: "read", norms: "write" },
    integers: ["numRows", "width"],
    floats: [],
  },
  promptEmbeddingForward: {
    summary:
      "y[row] = weight[token] for tokens below vocabSize, else prompt[token - vocabSize], token = tokens[row]; tokens i32 (N), weight (V, C), " +
      "prompt (P, C), y (N, C).",
    tensors: { tokens: "read", weight: "read", prompt: "read", y: "write" },
    integers: ["numRows", "width", "vocabSize", "promptLength"],
    floats: [],
  },
  promptEmbeddingBackward: {
    summary:
      "dprompt[p] += sum of dy[row] over rows whose token is vocabSize + p, added up in row order in f32 before the one rounding; tokens i32 (N), " +
      "dy (N, C), dprompt (P, C).",
    tensors: { tokens: "read", dy: "read", dprompt: "update" },
    integers: ["numRows", "width", "vocabSize", "promptLength"],
    floats: [],
  },
} as const satisfies Record<string, OpSpec>;
