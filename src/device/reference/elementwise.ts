/** Reference: fills, casts, sums and random numbers (Philox with Box-Muller, as the operator table defines them). */
import { philox, uniformFromBits } from "../../base/index.ts";
import { read, readScalar, write } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

export const elementwiseKernels = {
  fill: ({ y, numElements, value }) => write(y, new Float64Array(numElements).fill(value)),

  convert: ({ x, y, numElements }) => write(y, read(x, numElements)),

  add: ({ a, b, y, numElements }) => {
    const values = read(a, numElements);
    const other = read(b, numElements);
    for (let i = 0; i < numElements; i++) values[i] += other[i];
    write(y, values);
  },

  axpby: ({ x, y, numElements, alpha, beta }) => {
    const values = read(x, numElements);
    for (let i = 0; i < numElements; i++) values[i] *= alpha;
    // With beta = 0 what y held must not matter, NaN included.
    if (beta !== 0) {
      const previous = read(y, numElements);
      for (let i = 0; i < numElements; i++) values[i] += beta * previous[i];
    }
    write(y, values);
  },

  scaleRows: ({ x, rowScales, y, numRows, width }) => {
    const scales = read(rowScales, numRows);
    write(
      y,
      read(x, numRows * width).map((value, i) => scales[Math.floor(i / width)] * value),
    );
  },

  randomNormal: ({ y, numElements, seed, counter, mean, std }) => {
    const block = new Uint32Array(4);
    const values = new Float64Array(numElements);
    for (let i = 0; i < numElements; i++) {
      if (i % 4 === 0) philox(seed, counter + i / 4, block);
      const pair = (i % 4) >> 1;
      const radius = Math.sqrt(-2 * Math.log(1 - uniformFromBits(block[2 * pair])));
      const angle = 2 * Math.PI * uniformFromBits(block[2 * pair + 1]);
      values[i] = mean + std * radius * (i % 2 === 0 ? Math.cos(angle) : Math.sin(angle));
    }
    write(y, values);
  },

  sum: ({ x, accumulator, numElements }) => {
    let total = 0;
    for (const value of read(x, numElements)) total += value;
    write(accumulator, [readScalar(accumulator) + total]);
  },

  columnSum: ({ x, y, numRows, width, beta }) => {
    const values = read(x, numRows * width);
    const sums = beta === 0 ? new Float64Array(width) : read(y, width).map((value) => beta * value);
    for (let row = 0; row < numRows; row++) {
      for (let column = 0; column < width; column++) sums[column] += values[row * width + column];
    }
    write(y, sums);
  },
} satisfies Partial<ReferenceKernels>;
