/** Reference: low-rank additions chosen row by row. */
import { invariant } from "../../base/index.ts";
import { read, write } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

export const rowAdapterKernels = {
  adapterDown: ({ x, a, slots, low, numRows, width, rank, numSlots, xRowStride }) => {
    for (const [row, slot] of read(slots, numRows).entries()) {
      if (slot < 0) continue;
      invariant(slot < numSlots, `adapter slot ${slot} of ${numSlots}`);
      const input = read(x, width, row * xRowStride);
      const sums = new Float64Array(rank);
      for (let r = 0; r < rank; r++) {
        const line = read(a, width, (slot * rank + r) * width);
        for (let i = 0; i < width; i++) sums[r] += input[i] * line[i];
      }
      write(low, sums, row * rank);
    }
  },

  adapterUp: ({ low, b, scales, slots, y, ...sizes }) => {
    const { numRows, width, rank, numParts, secondStart, thirdStart, numSlots, yRowStride } = sizes;
    const scaleOf = read(scales, numSlots * numParts);
    for (const [row, slot] of read(slots, numRows).entries()) {
      if (slot < 0) continue;
      invariant(slot < numSlots, `adapter slot ${slot} of ${numSlots}`);
      const input = read(low, numParts * rank, row * numParts * rank);
      const output = read(y, width, row * yRowStride);
      const high = read(b, width * rank, slot * width * rank);
      for (let j = 0; j < width; j++) {
        const part = Number(j >= secondStart) + Number(j >= thirdStart);
        let sum = 0;
        for (let r = 0; r < rank; r++) sum += input[part * rank + r] * high[j * rank + r];
        output[j] += scaleOf[slot * numParts + part] * sum;
      }
      write(y, output, row * yRowStride);
    }
  },
} satisfies Partial<ReferenceKernels>;
