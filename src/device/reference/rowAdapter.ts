/** Reference: low-rank additions chosen row by row. */
import { invariant } from "../../base/index.ts";
import { read, write } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

export const rowAdapterKernels = {
  adapterLinear: ({ x, a, b, scales, slots, y, ...sizes }) => {
    const { numRows, widthIn, widthOut, rank, numSlots, xRowStride, yRowStride } = sizes;
    const scaleOf = read(scales, numSlots);
    for (const [row, slot] of read(slots, numRows).entries()) {
      if (slot < 0) continue;
      invariant(slot < numSlots, `adapter slot ${slot} of ${numSlots}`);
      const input = read(x, widthIn, row * xRowStride);
      const low = new Float64Array(rank);
      for (let r = 0; r < rank; r++) {
        const line = read(a, widthIn, (slot * rank + r) * widthIn);
        for (let i = 0; i < widthIn; i++) low[r] += input[i] * line[i];
      }
      const output = read(y, widthOut, row * yRowStride);
      const high = read(b, widthOut * rank, slot * widthOut * rank);
      for (let j = 0; j < widthOut; j++) {
        let sum = 0;
        for (let r = 0; r < rank; r++) sum += low[r] * high[j * rank + r];
        output[j] += scaleOf[slot] * sum;
      }
      write(y, output, row * yRowStride);
    }
  },
} satisfies Partial<ReferenceKernels>;
