/** Reference: what adapters need beside matrix products: gradients of low-rank additions, dropout, scaled columns, norms of rows, rows of virtual tokens. */
import { invariant, philox, uniformFromBits } from "../../base/index.ts";
import type { ReferenceKernels } from "./kernels.ts";
import { read, write } from "./memory.ts";

export const adapterKernels = {
  lowRankBackward: ({ dy, low, b, dlow, db, numRows, width, rank, alpha, beta, ...strides }) => {
    const { dyRowStride, lowRowStride, dlowRowStride } = strides;
    const factors = read(b, width * rank);
    const sums = new Float64Array(width * rank);
    for (let row = 0; row < numRows; row++) {
      const gradient = read(dy, width, row * dyRowStride);
      const lowered = read(low, rank, row * lowRowStride);
      const dlowered = new Float64Array(rank);
      for (let c = 0; c < width; c++)
        for (let r = 0; r < rank; r++) {
          dlowered[r] += gradient[c] * factors[c * rank + r];
          sums[c * rank + r] += gradient[c] * lowered[r];
        }
      write(
        dlow,
        dlowered.map((value) => alpha * value),
        row * dlowRowStride,
      );
    }
    const previous = beta === 0 ? undefined : read(db, width * rank);
    for (const [i, value] of sums.entries()) sums[i] = alpha * value + beta * (previous?.[i] ?? 0);
    write(db, sums);
  },

  dropout: ({ x, y, numElements, seed, counter, probability }) => {
    const block = new Uint32Array(4);
    const values = read(x, numElements);
    for (let i = 0; i < numElements; i++) {
      if (i % 4 === 0) philox(seed, counter + i / 4, block);
      values[i] = uniformFromBits(block[i % 4]) < probability ? 0 : values[i] / (1 - probability);
    }
    write(y, values);
  },

  multiply: ({ a, b, y, numElements }) => {
    const values = read(a, numElements);
    const other = read(b, numElements);
    for (let i = 0; i < numElements; i++) values[i] *= other[i];
    write(y, values);
  },

  scaleColumns: ({ x, scale, divisor, y, numRows, width, xRowStride, yRowStride }) => {
    const factors = read(scale, width);
    const divisors = divisor && read(divisor, width);
    for (let row = 0; row < numRows; row++) {
      const values = read(x, width, row * xRowStride);
      for (let c = 0; c < width; c++) values[c] *= factors[c] / (divisors?.[c] ?? 1);
      write(y, values, row * yRowStride);
    }
  },

  columnDot: ({ a, b, divisor, y, numRows, width, aRowStride, bRowStride, beta }) => {
    const sums = new Float64Array(width);
    for (let row = 0; row < numRows; row++) {
      const left = read(a, width, row * aRowStride);
      const right = read(b, width, row * bRowStride);
      for (let c = 0; c < width; c++) sums[c] += left[c] * right[c];
    }
    const divisors = divisor && read(divisor, width);
    const previous = beta === 0 ? undefined : read(y, width);
    for (let c = 0; c < width; c++) sums[c] = sums[c] / (divisors?.[c] ?? 1) + beta * (previous?.[c] ?? 0);
    write(y, sums);
  },

  rowNorms: ({ x, norms, numRows, width }) => {
    const out = Float64Array.from({ length: numRows }, (_, row) =>
      Math.sqrt(read(x, width, row * width).reduce((total, value) => total + value * value, 0)),
    );
    write(norms, out);
  },

  promptEmbeddingForward: ({ tokens, weight, prompt, y, numRows, width, vocabSize, promptLength }) => {
    for (const [row, token] of read(tokens, numRows).entries()) {
      invariant(
        token >= 0 && token < vocabSize + promptLength,
        `token ${token} of a vocabulary of ${vocabSize} and ${promptLength} virtual tokens`,
      );
      const values =
        token < vocabSize
          ? read(weight, width, token * width)
          : read(prompt, width, (token - vocabSize) * width);
      write(y, values, row * width);
    }
  },

  promptEmbeddingBackward: ({ tokens, dy, dprompt, numRows, width, vocabSize, promptLength }) => {
    const sums = new Float64Array(promptLength * width);
    for (const [row, token] of read(tokens, numRows).entries()) {
      if (token < vocabSize) continue;
      const gradient = read(dy, width, row * width);
      for (let c = 0; c < width; c++) sums[(token - vocabSize) * width + c] += gradient[c];
    }
    const previous = read(dprompt, promptLength * width);
    for (const [i, value] of previous.entries()) sums[i] += value;
    write(dprompt, sums);
  },
} satisfies Partial<ReferenceKernels>;
