/** Reference: fills, casts, sums and random numbers. */
import { philox, uniformFromBits } from "../../base/index.ts";
import { read, write } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

export const elementwiseKernels = {
  fill: ({ y, numElements, value }) => write(y, new Float64Array(numElements).fill(value)),

  convert: ({ x, y, numElements }) => write(y, read(x, numElements)),

  add: ({ a, b, y, numElements }) => {
    const left = read(a, numElements);
    const right = read(b, numElements);
    write(
      y,
      left.map((value, i) => value + right[i]),
    );
  },

  axpby: ({ x, y, numElements, alpha, beta }) => {
    const values = read(x, numElements);
    // beta = 0 must not carry over what y held, NaN included.
    const previous = beta === 0 ? new Float64Array(numElements) : read(y, numElements);
    write(
      y,
      values.map((value, i) => alpha * value + beta * previous[i]),
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
    const values = read(x, numElements);
    write(accumulator, [read(accumulator, 1)[0] + values.reduce((total, value) => total + value, 0)]);
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
