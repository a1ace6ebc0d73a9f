/** Reference: rows gathered by token, and their gradients added up by token. Touches only the rows that are named. */
import { invariant } from "../../base/index.ts";
import type { TensorArgument } from "../contract.ts";
import { read, write } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

function readTokens(tokens: TensorArgument, numRows: number, vocabSize: number): Float64Array {
  const values = read(tokens, numRows);
  for (const token of values) {
    invariant(token >= 0 && token < vocabSize, `token ${token} of a vocabulary of ${vocabSize}`);
  }
  return values;
}

export const embeddingKernels = {
  embeddingForward: ({ tokens, weight, y, numRows, width, vocabSize }) => {
    const rows = readTokens(tokens, numRows, vocabSize);
    for (let row = 0; row < numRows; row++) write(y, read(weight, width, rows[row] * width), row * width);
  },

  embeddingBackward: ({ tokens, dy, dweight, numRows, width, vocabSize }) => {
    const sums = new Map<number, Float64Array>();
    for (const [row, token] of readTokens(tokens, numRows, vocabSize).entries()) {
      const gradient = read(dy, width, row * width);
      const sum = sums.get(token);
      if (sum === undefined) sums.set(token, gradient);
      else for (let i = 0; i < width; i++) sum[i] += gradient[i];
    }
    for (const [token, sum] of sums) {
      const previous = read(dweight, width, token * width);
      for (let i = 0; i < width; i++) sum[i] += previous[i];
      write(dweight, sum, token * width);
    }
  },
} satisfies Partial<ReferenceKernels>;
