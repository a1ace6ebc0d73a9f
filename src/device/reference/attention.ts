/** Reference: rotary positions, attention over whole, packed and paged sequences, and its gradients, score by score. */
import { dtypeBytes } from "../../base/index.ts";
import { extent, read, write, writeRows } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

/** Rows of one sequence: queries and keys begin at these rows and have these lengths. */
interface Segment {
  queryStart: number;
  queryLength: number;
  keyStart: number;
  keyLength: number;
}

interface SegmentLayout {
  numSequences: number;
  queryLength: number;
  keyLength: number;
}

function segmentsOf(layout: SegmentLayout, starts: Float64Array | undefined): Segment[] {
  const { numSequences, queryLength, keyLength } = layout;
  return Array.from({ length: numSequences }, (_, i) => {
    if (starts === undefined)
      return { queryStart: i * queryLength, queryLength, keyStart: i * keyLength, keyLength };
    const length = starts[i + 1] - starts[i];
    return { queryStart: starts[i], queryLength: length, keyStart: starts[i], keyLength: length };
  });
}

function dot(a: Float64Array, aStart: number, b: Float64Array, bStart: number, length: number): number {
  let total = 0;
  for (let i = 0; i < length; i++) total += a[aStart + i] * b[bStart + i];
  return total;
}

/** Softmax weights of `scores` and the natural log of the sum of their exponentials. */
function softmax(scores: Float64Array): { weights: Float64Array; logSumExp: number } {
  const highest = scores.reduce((best, score) => Math.max(best, score), -Infinity);
  const weights = scores.map((score) => Math.exp(score - highest));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return { weights: weights.map((weight) => weight / total), logSumExp: highest + Math.log(total) };
}

export const attentionKernels = {
  rotary: ({
    x,
    positions,
    cosSin,
    y,
    numRows,
    numHeads,
    headDim,
    rotaryDim,
    xRowStride,
    yRowStride,
    inverse,
  }) => {
    const width = numHeads * headDim;
    const values = read(x, extent(numRows, xRowStride, width));
    const out = read(y, extent(numRows, yRowStride, width));
    const at = read(positions, numRows);
    const table = read(
      cosSin,
      (at.reduce((highest, position) => Math.max(highest, position), -1) + 1) * rotaryDim,
    );
    const half = rotaryDim / 2;
    for (let row = 0; row < numRows; row++) {
      for (let head = 0; head < numHeads; head++) {
        const from = row * xRowStride + head * headDim;
        const to = row * yRowStride + head * headDim;
        for (let i = 0; i < half; i++) {
          const cosine = table[at[row] * rotaryDim + i];
          const sine = (inverse === 1 ? -1 : 1) * table[at[row] * rotaryDim + half + i];
          const first = values[from + i];
          const second = values[from + half + i];
          out[to + i] = first * cosine - second * sine;
          out[to + half + i] = second * cosine + first * sine;
        }
        for (let i = rotaryDim; i < headDim; i++) out[to + i] = values[from + i];
      }
    }
    writeRows(y, out, { numRows, width, rowStride: yRowStride });
  },

  attentionForward: (args) => {
    const { numHeads, numKvHeads, headDim, numRows, scale, causal } = args;
    const segments = segmentsOf(args, args.cuSeqLens && read(args.cuSeqLens, args.numSequences + 1));
    const numKeyRows = args.cuSeqLens === undefined ? args.numSequences * args.keyLength : numRows;
    const q = read(args.q, extent(numRows, args.qRowStride, numHeads * headDim));
    const k = read(args.k, extent(numKeyRows, args.kRowStride, numKvHeads * headDim));
    const v = read(args.v, extent(numKeyRows, args.vRowStride, numKvHeads * headDim));
    const o = read(args.o, extent(numRows, args.oRowStride, numHeads * headDim));
    const logSums = new Float64Array(numHeads * numRows);
    for (const { queryStart, queryLength, keyStart, keyLength } of segments) {
      for (let head = 0; head < numHeads; head++) {
        const kvHead = Math.floor((head * numKvHeads) / numHeads);
        for (let t = 0; t < queryLength; t++) {
          const numKeys = causal === 1 ? Math.min(keyLength, t + keyLength - queryLength + 1) : keyLength;
          const qAt = (queryStart + t) * args.qRowStride + head * headDim;
          const scores = Float64Array.from(
            { length: Math.max(0, numKeys) },
            (_, s) => scale * dot(q, qAt, k, (keyStart + s) * args.kRowStride + kvHead * headDim, headDim),
          );
          const { weights, logSumExp } = softmax(scores);
          logSums[head * numRows + queryStart + t] = logSumExp;
          for (let i = 0; i < headDim; i++) {
            let total = 0;
            for (let s = 0; s < weights.length; s++)
              total += weights[s] * v[(keyStart + s) * args.vRowStride + kvHead * headDim + i];
            o[(queryStart + t) * args.oRowStride + head * headDim + i] = total;
          }
        }
      }
    }
    writeRows(args.o, o, { numRows, width: numHeads * headDim, rowStride: args.oRowStride });
    if (args.logSumExp !== undefined) write(args.logSumExp, logSums);
  },

  attentionBackward: (args) => {
    const { numHeads, numKvHeads, headDim, numRows, scale, causal } = args;
    const segments = segmentsOf(args, args.cuSeqLens && read(args.cuSeqLens, args.numSequences + 1));
    const numKeyRows = args.cuSeqLens === undefined ? args.numSequences * args.keyLength : numRows;
    const queryExtent = extent(numRows, args.qRowStride, numHeads * headDim);
    const outputExtent = extent(numRows, args.oRowStride, numHeads * headDim);
    const keyExtent = extent(numKeyRows, args.kRowStride, numKvHeads * headDim);
    const valueExtent = extent(numKeyRows, args.vRowStride, numKvHeads * headDim);
    const q = read(args.q, queryExtent);
    const k = read(args.k, keyExtent);
    const v = read(args.v, valueExtent);
    const o = read(args.o, outputExtent);
    const doutput = read(args.doutput, outputExtent);
    const logSums = read(args.logSumExp, numHeads * numRows);
    const dq = new Float64Array(queryExtent);
    const dk = new Float64Array(keyExtent);
    const dv = new Float64Array(valueExtent);
    for (const { queryStart, queryLength, keyStart, keyLength } of segments) {
      for (let head = 0; head < numHeads; head++) {
        const kvHead = Math.floor((head * numKvHeads) / numHeads);
        for (let t = 0; t < queryLength; t++) {
          const row = queryStart + t;
          const qAt = row * args.qRowStride + head * headDim;
          const oAt = row * args.oRowStride + head * headDim;
          const delta = dot(o, oAt, doutput, oAt, headDim);
          const numKeys = causal === 1 ? Math.min(keyLength, t + keyLength - queryLength + 1) : keyLength;
          for (let s = 0; s < numKeys; s++) {
            const kAt = (keyStart + s) * args.kRowStride + kvHead * headDim;
            const vAt = (keyStart + s) * args.vRowStride + kvHead * headDim;
            const weight = Math.exp(scale * dot(q, qAt, k, kAt, headDim) - logSums[head * numRows + row]);
            const dscore = scale * weight * (dot(doutput, oAt, v, vAt, headDim) - delta);
            for (let i = 0; i < headDim; i++) {
              dv[vAt + i] += weight * doutput[oAt + i];
              dq[qAt + i] += dscore * k[kAt + i];
              dk[kAt + i] += dscore * q[qAt + i];
            }
          }
        }
      }
    }
    writeRows(args.dq, dq, { numRows, width: numHeads * headDim, rowStride: args.qRowStride });
    writeRows(args.dk, dk, { numRows: numKeyRows, width: numKvHeads * headDim, rowStride: args.kRowStride });
    writeRows(args.dv, dv, { numRows: numKeyRows, width: numKvHeads * headDim, rowStride: args.vRowStride });
  },

  kvCacheWrite: ({ k, v, slots, kCache, vCache, numRows, numKvHeads, headDim, kRowStride, vRowStride }) => {
    const width = numKvHeads * headDim;
    const at = read(slots, numRows);
    for (const [source, rowStride, cache] of [
      [k, kRowStride, kCache],
      [v, vRowStride, vCache],
    ] as const) {
      const values = read(source, extent(numRows, rowStride, width));
      const elementBytes = dtypeBytes(cache.dtype);
      for (let row = 0; row < numRows; row++) {
        if (at[row] < 0) continue;
        const { buffer, dtype } = cache;
        const byteOffset = cache.byteOffset + at[row] * width * elementBytes;
        write({ buffer, dtype, byteOffset }, values.subarray(row * rowStride, row * rowStride + width));
      }
    }
  },

  attentionPaged: (args) => {
    const {
      numSequences,
      numHeads,
      numKvHeads,
      headDim,
      blockSize,
      maxBlocksPerSequence,
      qRowStride,
      oRowStride,
      scale,
    } = args;
    const width = numKvHeads * headDim;
    const starts = read(args.queryStarts, numSequences + 1);
    const contexts = read(args.contextLengths, numSequences);
    const tables = read(args.blockTables, numSequences * maxBlocksPerSequence);
    const numRows = starts[numSequences];
    const slotBytes = width * dtypeBytes(args.kCache.dtype);
    const numSlots = Math.floor((args.kCache.buffer.byteLength - args.kCache.byteOffset) / slotBytes);
    const q = read(args.q, extent(numRows, qRowStride, numHeads * headDim));
    const keys = read(args.kCache, numSlots * width);
    const values = read(args.vCache, numSlots * width);
    const o = read(args.o, extent(numRows, oRowStride, numHeads * headDim));
    for (let sequence = 0; sequence < numSequences; sequence++) {
      const queryLength = starts[sequence + 1] - starts[sequence];
      const slotOf = (s: number): number =>
        tables[sequence * maxBlocksPerSequence + Math.floor(s / blockSize)] * blockSize + (s % blockSize);
      for (let t = 0; t < queryLength; t++) {
        const row = starts[sequence] + t;
        const numKeys = contexts[sequence] - queryLength + t + 1;
        for (let head = 0; head < numHeads; head++) {
          const kvAt = Math.floor((head * numKvHeads) / numHeads) * headDim;
          const scores = Float64Array.from(
            { length: numKeys },
            (_, s) =>
              scale * dot(q, row * qRowStride + head * headDim, keys, slotOf(s) * width + kvAt, headDim),
          );
          const { weights } = softmax(scores);
          for (let i = 0; i < headDim; i++) {
            let total = 0;
            for (let s = 0; s < numKeys; s++) total += weights[s] * values[slotOf(s) * width + kvAt + i];
            o[row * oRowStride + head * headDim + i] = total;
          }
        }
      }
    }
    writeRows(args.o, o, { numRows, width: numHeads * headDim, rowStride: oRowStride });
  },
} satisfies Partial<ReferenceKernels>;
