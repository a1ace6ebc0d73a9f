/** Reference: rotary positions (Su et al., "RoFormer", 2021) over the first components of each head, pairs half a turn apart. */
import type { OpArguments } from "../contract.ts";
import { cacheKernels } from "./cache.ts";
import { cachedHeads, writeSlot } from "./cachedHeads.ts";
import { read, readRows, write, writeRows } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

/** Turns every head of `values`, (numHeads, headDim), in place. `angles`: the cosines of all pairs, then the sines. */
function turnHeads(
  values: Float64Array,
  angles: Float64Array,
  { headDim, isInverse = false }: { headDim: number; isInverse?: boolean },
): void {
  const half = angles.length / 2;
  for (let at = 0; at < values.length; at += headDim) {
    for (let i = 0; i < half; i++) {
      const cosine = angles[i];
      const sine = isInverse ? -angles[half + i] : angles[half + i];
      const first = values[at + i];
      const second = values[at + half + i];
      values[at + i] = first * cosine - second * sine;
      values[at + half + i] = second * cosine + first * sine;
    }
  }
}

function rotaryCacheWrite(args: OpArguments<"rotaryCacheWrite">): void {
  const { q, k, v, positions, cosSin, slots, numRows, headDim, rotaryDim } = args;
  const cached = cachedHeads(args);
  const width = args.numHeads * headDim;
  const kvWidth = args.numKvHeads * headDim;
  const rowPositions = read(positions, numRows);
  const rowSlots = read(slots, numRows);
  for (let row = 0; row < numRows; row++) {
    const angles = read(cosSin, rotaryDim, rowPositions[row] * rotaryDim);
    const queries = read(q, width, row * args.qRowStride);
    turnHeads(queries, angles, { headDim });
    write(q, queries, row * args.qRowStride);
    const slot = rowSlots[row];
    if (slot < 0) continue;
    const keys = read(k, kvWidth, row * args.kRowStride);
    turnHeads(keys, angles, { headDim });
    writeSlot(cached.keys, slot, { heads: keys, dtype: k.dtype });
    writeSlot(cached.values, slot, { heads: read(v, kvWidth, row * args.vRowStride), dtype: v.dtype });
  }
}

export const rotaryKernels = {
  rotary: (args) => {
    const { x, positions, cosSin, y, numRows, numHeads, headDim, rotaryDim, inverse } = args;
    const width = numHeads * headDim;
    const values = readRows(x, { numRows, width, stride: args.xRowStride });
    const rowPositions = read(positions, numRows);
    for (let row = 0; row < numRows; row++) {
      const angles = read(cosSin, rotaryDim, rowPositions[row] * rotaryDim);
      const heads = values.subarray(row * width, (row + 1) * width);
      turnHeads(heads, angles, { headDim, isInverse: inverse === 1 });
    }
    writeRows(y, values, { numRows, width, stride: args.yRowStride });
  },

  rotaryCacheWrite,

  rotaryAttentionPaged: (args) => {
    rotaryCacheWrite({ ...args, numRows: args.numSequences });
    cacheKernels.attentionPaged({ ...args, maxQueryLength: 1 });
  },
} satisfies Partial<ReferenceKernels>;
