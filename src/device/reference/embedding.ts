/** Reference: rows of a table by token, and the gradient of the table. */
import { read, write } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

export const embeddingKernels = {
  embeddingForward: ({ tokens, weight, y, numRows, width, vocabSize }) => {
    const ids = read(tokens, numRows);
    const table = read(weight, vocabSize * width);
    const rows = new Float64Array(numRows * width);
    for (let row = 0; row < numRows; row++)
      rows.set(table.subarray(ids[row] * width, (ids[row] + 1) * width), row * width);
    write(y, rows);
  },

  embeddingBackward: ({ tokens, dy, dweight, numRows, width, vocabSize }) => {
    const ids = read(tokens, numRows);
    const gradients = read(dy, numRows * width);
    const table = read(dweight, vocabSize * width);
    for (let row = 0; row < numRows; row++) {
      for (let column = 0; column < width; column++)
        table[ids[row] * width + column] += gradients[row * width + column];
    }
    write(dweight, table);
  },
} satisfies Partial<ReferenceKernels>;
