/** Reference: rows gathered by token, their gradients added up by token, and rows summed by index. Touches only the rows that are named. */
import { invariant } from "../../base/index.ts";
import type { TensorArgument } from "../contract.ts";
import { read, write } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

/** Indices of rows of a matrix that has `numSources`. */
function readIndices(indices: TensorArgument, count: number, numSources: number): Float64Array {
  const values = read(indices, count);
  for (const index of values) invariant(index >= 0 && index < numSources, `row ${index} of ${numSources}`);
  return values;
}

export const embeddingKernels = {
  embeddingForward: ({ tokens, weight, y, numRows, width, vocabSize }) => {
    const rows = readIndices(tokens, numRows, vocabSize);
    for (let row = 0; row < numRows; row++) write(y, read(weight, width, rows[row] * width), row * width);
  },

  embeddingBackward: ({ tokens, dy, dweight, numRows, width, vocabSize }) => {
    const sums = new Map<number, Float64Array>();
    for (const [row, token] of readIndices(tokens, numRows, vocabSize).entries()) {
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

  sumRows: ({ x, starts, sources, y, numRows, width, numSources }) => {
    const bounds = read(starts, numRows + 1);
    const rows = readIndices(sources, bounds[numRows], numSources);
    for (let row = 0; row < numRows; row++) {
      const sum = new Float64Array(width);
      for (const source of rows.subarray(bounds[row], bounds[row + 1])) {
        const values = read(x, width, source * width);
        for (let i = 0; i < width; i++) sum[i] += values[i];
      }
      write(y, sum, row * width);
    }
  },
} satisfies Partial<ReferenceKernels>;
