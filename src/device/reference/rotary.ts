/** Reference: rotary positions (Su et al., "RoFormer", 2021) over the first components of each head, pairs half a turn apart. */
import { read, readRows, writeRows } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

export const rotaryKernels = {
  rotary: (args) => {
    const { x, positions, cosSin, y, numRows, numHeads, headDim, rotaryDim, inverse } = args;
    const width = numHeads * headDim;
    const half = rotaryDim / 2;
    const values = readRows(x, { numRows, width, stride: args.xRowStride });
    const rowPositions = read(positions, numRows);
    for (let row = 0; row < numRows; row++) {
      const angles = read(cosSin, rotaryDim, rowPositions[row] * rotaryDim);
      for (let head = 0; head < numHeads; head++) {
        const at = row * width + head * headDim;
        for (let i = 0; i < half; i++) {
          const cosine = angles[i];
          const sine = inverse === 1 ? -angles[half + i] : angles[half + i];
          const first = values[at + i];
          const second = values[at + half + i];
          values[at + i] = first * cosine - second * sine;
          values[at + half + i] = second * cosine + first * sine;
        }
      }
    }
    writeRows(y, values, { numRows, width, stride: args.yRowStride });
  },
} satisfies Partial<ReferenceKernels>;
