/**
 * Reference: attention over whole and packed sequences, and its gradients, one query row and head at a time (formulas: Dao et al.,
 * "FlashAttention", 2022, section 3 and appendix B). A query row that sees no key gives zeros and a log-sum of minus infinity.
 */
import type { OpArguments } from "../contract.ts";
import { read, readRows, write, writeRows } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

/** Where one sequence lies: its rows of q (and o), and of k and v. */
interface Sequence {
  queryStart: number;
  queryLength: number;
  keyStart: number;
  keyLength: number;
}

type SharedArguments = Omit<OpArguments<"attentionForward">, "o" | "logSumExp">;

function sequencesOf({ cuSeqLens, numSequences, queryLength, keyLength }: SharedArguments): Sequence[] {
  const starts = cuSeqLens && read(cuSeqLens, numSequences + 1);
  return Array.from({ length: numSequences }, (_, i) => {
    if (starts === undefined) {
      return { queryStart: i * queryLength, queryLength, keyStart: i * keyLength, keyLength };
    }
    const length = starts[i + 1] - starts[i];
    return { queryStart: starts[i], queryLength: length, keyStart: starts[i], keyLength: length };
  });
}

/** The operands of both directions, with rows closed up. */
interface Operands {
  q: Float64Array;
  k: Float64Array;
  v: Float64Array;
  /** Rows of k and v. */
  numKeyRows: number;
  queryWidth: number;
  keyWidth: number;
}

function operandsOf(args: SharedArguments): Operands {
  const { numSequences, keyLength, numRows, numHeads, numKvHeads, headDim } = args;
  const numKeyRows = args.cuSeqLens === undefined ? numSequences * keyLength : numRows;
  const queryWidth = numHeads * headDim;
  const keyWidth = numKvHeads * headDim;
  return {
    q: readRows(args.q, { numRows, width: queryWidth, stride: args.qRowStride }),
    k: readRows(args.k, { numRows: numKeyRows, width: keyWidth, stride: args.kRowStride }),
    v: readRows(args.v, { numRows: numKeyRows, width: keyWidth, stride: args.vRowStride }),
    numKeyRows,
    queryWidth,
    keyWidth,
  };
}

/** One query row of one head, as the loops below meet it. */
interface QueryRow {
  /** Row of q and o. */
  row: number;
  head: number;
  /** First elements of the head's part of the row in q and o, and of its keys and values in the sequence's first row. */
  queryAt: number;
  keyAt: number;
  numKeys: number;
}

function* queryRows(args: SharedArguments, { queryWidth, keyWidth }: Operands): Generator<QueryRow> {
  const { numHeads, numKvHeads, headDim, causal } = args;
  for (const { queryStart, queryLength, keyStart, keyLength } of sequencesOf(args)) {
    for (let head = 0; head < numHeads; head++) {
      const kvHead = Math.floor((head * numKvHeads) / numHeads);
      for (let t = 0; t < queryLength; t++) {
        const row = queryStart + t;
        const visible = t + keyLength - queryLength + 1;
        yield {
          row,
          head,
          queryAt: row * queryWidth + head * headDim,
          keyAt: keyStart * keyWidth + kvHead * headDim,
          numKeys: causal === 1 ? Math.max(0, Math.min(keyLength, visible)) : keyLength,
        };
      }
    }
  }
}

/** Where the parts of two dot products' operands begin. */
function dot(
  a: Float64Array,
  b: Float64Array,
  { aAt, bAt, length }: { aAt: number; bAt: number; length: number },
): number {
  let total = 0;
  for (let i = 0; i < length; i++) total += a[aAt + i] * b[bAt + i];
  return total;
}

/** Turns scores into softmax weights, in place, and gives the natural log of the sum of their exponentials. */
export function softmaxInPlace(scores: Float64Array): number {
  let highest = -Infinity;
  for (const score of scores) highest = Math.max(highest, score);
  let total = 0;
  for (let s = 0; s < scores.length; s++) {
    scores[s] = Math.exp(scores[s] - highest);
    total += scores[s];
  }
  for (let s = 0; s < scores.length; s++) scores[s] /= total;
  return highest + Math.log(total);
}

export const attentionKernels = {
  attentionForward: (args) => {
    const { numRows, numHeads, headDim, scale } = args;
    const operands = operandsOf(args);
    const { q, k, v, queryWidth, keyWidth } = operands;
    const out = new Float64Array(numRows * queryWidth);
    const logSums = new Float64Array(numHeads * numRows);
    for (const { row, head, queryAt, keyAt, numKeys } of queryRows(args, operands)) {
      const weights = new Float64Array(numKeys);
      for (let s = 0; s < numKeys; s++) {
        weights[s] = scale * dot(q, k, { aAt: queryAt, bAt: keyAt + s * keyWidth, length: headDim });
      }
      logSums[head * numRows + row] = softmaxInPlace(weights);
      for (let s = 0; s < numKeys; s++) {
        const weight = weights[s];
        const valueAt = keyAt + s * keyWidth;
        for (let i = 0; i < headDim; i++) out[queryAt + i] += weight * v[valueAt + i];
      }
    }
    writeRows(args.o, out, { numRows, width: queryWidth, stride: args.oRowStride });
    if (args.logSumExp !== undefined) write(args.logSumExp, logSums);
  },

  /** With P the softmax weights: dv = P^T do, dP = do v^T, dS = P (dP - delta), delta = row sums of do * o, dq = scale dS k, dk = scale dS^T q. */
  attentionBackward: (args) => {
    const { numRows, numHeads, headDim, scale } = args;
    const operands = operandsOf(args);
    const { q, k, v, numKeyRows, queryWidth, keyWidth } = operands;
    const outputLayout = { numRows, width: queryWidth, stride: args.oRowStride };
    const o = readRows(args.o, outputLayout);
    const doutput = readRows(args.doutput, outputLayout);
    const logSums = read(args.logSumExp, numHeads * numRows);
    const dq = new Float64Array(q.length);
    const dk = new Float64Array(k.length);
    const dv = new Float64Array(v.length);
    for (const { row, head, queryAt, keyAt, numKeys } of queryRows(args, operands)) {
      const delta = dot(o, doutput, { aAt: queryAt, bAt: queryAt, length: headDim });
      for (let s = 0; s < numKeys; s++) {
        const sAt = keyAt + s * keyWidth;
        const score = scale * dot(q, k, { aAt: queryAt, bAt: sAt, length: headDim });
        const weight = Math.exp(score - logSums[head * numRows + row]);
        const dweight = dot(doutput, v, { aAt: queryAt, bAt: sAt, length: headDim });
        const dscore = scale * weight * (dweight - delta);
        for (let i = 0; i < headDim; i++) {
          dv[sAt + i] += weight * doutput[queryAt + i];
          dq[queryAt + i] += dscore * k[sAt + i];
          dk[sAt + i] += dscore * q[queryAt + i];
        }
      }
    }
    writeRows(args.dq, dq, { numRows, width: queryWidth, stride: args.qRowStride });
    writeRows(args.dk, dk, { numRows: numKeyRows, width: keyWidth, stride: args.kRowStride });
    writeRows(args.dv, dv, { numRows: numKeyRows, width: keyWidth, stride: args.vRowStride });
  },
} satisfies Partial<ReferenceKernels>;
