/** Weights in 8 or 4 bits, and activations in 8: their codes, values and products. Conventions: ../ops.ts. */
import type { OpSpec } from "./spec.ts";

export const quantiseOps = {
  quantise: {
    summary:
      "Codes and scales of x (N, C), format 0 int8, 1 NF4, 2 int4, in groups of groupSize elements within a row (a multiple of 32, or at least C). " +
      "All arithmetic in f32, each step rounded. peak: the group's largest magnitude. int8: scale = peak / 127, code = x * (127 / peak) to nearest even. " +
      "NF4 (QLoRA, Dettmers et al. 2023): scale = peak, code = index of the value of the table nearest to x * (1 / peak), a tie to the lower one. " +
      "int4: scale = v / -8 for the first v of magnitude peak, code = 8 + x * (1 / scale) to nearest even, at most 15. " +
      "An empty or all-zero group has scale 0 and codes of value 0. codes u8: int8 (N, C) in two's complement; else (N, ceil(C / 2)), the first of two in the high half, " +
      "0 after an odd end. scales f32 (N, ceil(C / groupSize)).",
    tensors: { x: "read", codes: "write", scales: "write" },
    integers: ["numRows", "width", "groupSize", "format"],
    floats: [],
  },
  quantiseRows: {
    summary:
      "Codes in E4M3 (a sign, 4 bits of exponent with bias 7, 3 of fraction; largest 448, no infinities; 0x7f and 0xff NaN) and one scale for each row of x (N, C), " +
      "a weight's rows or activations alike. All arithmetic in f32, each step rounded. peak: the row's largest magnitude, NaN aside; scale = peak / 448, " +
      "code = x * (448 / peak) to nearest even, at most 448; a NaN has code 0x7f. Where peak / 448 is below 2^-126, as in a row of zeros, the scale is 0 and so are the codes' magnitudes. " +
      "A row with an infinity has scale infinity: all its products are NaN. codes u8 (N, C), scales f32 (N).",
    tensors: { x: "read", codes: "write", scales: "write" },
    integers: ["numRows", "width", "xRowStride"],
    floats: [],
  },
  dequantise: {
    summary:
      "y = value of the code times the group's scale; y (N, C), layout and format as quantise: int8 the code, NF4 its table's entry, int4 the code minus 8. " +
      "The scale of group g, counted over all rows: scales[g], or where scales is null (double quantisation) scaleTable[scaleCodes[g]] * scaleScales[floor(g / 256)] + scaleOffset; " +
      "scaleCodes u8, scaleTable f32 (256), scaleScales f32.",
    tensors: {
      codes: "read",
      scales: "read?",
      scaleCodes: "read?",
      scaleTable: "read?",
      scaleScales: "read?",
      y: "write",
    },
    integers: ["numRows", "width", "groupSize", "format"],
    floats: ["scaleOffset"],
  },
  dequantiseRows: {
    summary:
      "y = value of the code times the row's scale: codes and scales as quantiseRows gives them; y (N, C).",
    tensors: { codes: "read", scales: "read", y: "write" },
    integers: ["numRows", "width"],
    floats: [],
  },
  matmulScaled: {
    summary:
      "c = (a b^T) * aScales * bScales + bias, a (m, k) and b (n, k) codes of E4M3 with a scale for each row, as quantiseRows gives them: c[i, j] = (the sum over a[i, p] b[j, p]) * aScales[i] * bScales[j] + bias[j]. " +
      "aScales (m) and bScales (n) f32, bias (n), c (m, n) of row stride ldc. k is at least 1. " +
      "Tensor cores may cut sums of up to 256 products off after 14 bits before they are added up in f32.",
    tensors: { a: "read", aScales: "read", b: "read", bScales: "read", bias: "read?", c: "write" },
    integers: ["m", "n", "k", "ldc"],
    floats: [],
  },
  matmulQuantised: {
    summary:
      "y = x w^T + bias, w (n, k) as dequantise would give it in f32, read from its codes: for a few rows of x, as decoding has them. " +
      "x (m, k), y (m, n), bias (n).",
    tensors: {
      x: "read",
      codes: "read",
      scales: "read?",
      scaleCodes: "read?",
      scaleTable: "read?",
      scaleScales: "read?",
      bias: "read?",
      y: "write",
    },
    integers: ["m", "n", "k", "groupSize", "format"],
    floats: ["scaleOffset"],
  },
} as const satisfies Record<string, OpSpec>;

/** The formats with scales for groups of weights, by the operators' numbers: activations stay in floats. */
export const groupFormats = { int8: 0, nf4: 1, int4: 2 } as const;
export type GroupFormat = keyof typeof groupFormats;
/** The names that users give: those, and E4M3 with a scale for each row of weights and of activations. */
export type QuantisedFormat = GroupFormat | "fp8";
export const quantisedFormats: readonly QuantisedFormat[] = ["int8", "nf4", "int4", "fp8"];

/** The formats of two codes a byte. */
export function isPacked(format: QuantisedFormat | number): boolean {
  return format === "nf4" || format === "int4" || format === groupFormats.nf4 || format === groupFormats.int4;
}

/**
 * The sixteen values of NF4: quantiles of the normal distribution, scaled to [-1, 1], with an exact zero. As the QLoRA paper
 * publishes them (Dettmers et al. 2023, appendix E), in f32.
 */
export const nf4Values: readonly number[] = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
  -0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725,
  0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
];
