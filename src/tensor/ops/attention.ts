/**
 * Causal self-attention over a fused QKV projection: partial rotary positions (Su et al., 2021) in place, then attention in
 * memory linear in the length (Dao et al., "FlashAttention", 2022). No permuting copies: heads are read by row stride.
 */
import { invariant, ShapeError } from "../../base/index.ts";
import type { Context } from "../context.ts";
import { record } from "../tape.ts";
import type { Tensor } from "../tensor.ts";

export interface HeadLayout {
  /** H */
  numHeads: number;
  /** G */
  numKvHeads: number;
  /** D */
  headDim: number;
}

export interface RotaryTable {
  /** f32 (maxPositions, rotaryDim): cosines, then sines, of each pair's angle. */
  cosSin: Tensor;
  /** How many components of a head turn; the rest pass through. */
  rotaryDim: number;
}

/** Values in a row of the fused projection: H query heads, then G key heads, then G value heads. */
export function qkvWidth({ numHeads, numKvHeads, headDim }: HeadLayout): number {
  return (numHeads + 2 * numKvHeads) * headDim;
}

/**
 * The table of angles position * frequencies[i] for positions 0 .. maxPositions, owned by the innermost scope. `amplitude` scales what
 * is turned, queries and keys alike: YaRN's temperature (Peng et al., 2023).
 */
export function rotaryTable(
  context: Context,
  {
    maxPositions,
    rotaryDim,
    frequencies,
    amplitude = 1,
  }: { maxPositions: number; rotaryDim: number; frequencies: ArrayLike<number>; amplitude?: number },
): RotaryTable {
  const numPairs = rotaryDim / 2;
  invariant(frequencies.length === numPairs, "one frequency per rotated pair");
  const values = new Float32Array(maxPositions * rotaryDim);
  for (let position = 0; position < maxPositions; position++) {
    for (let pair = 0; pair < numPairs; pair++) {
      const angle = position * frequencies[pair];
      values[position * rotaryDim + pair] = amplitude * Math.cos(angle);
      values[position * rotaryDim + numPairs + pair] = amplitude * Math.sin(angle);
    }
  }
  return { cosSin: context.tensor(values, [maxPositions, rotaryDim], "f32"), rotaryDim };
}

/** Turns the query and key heads of qkv (N, (H + 2G) D) by their positions i32 (N), in place. */
export function rotateQueriesAndKeys(
  context: Context,
  qkv: Tensor,
  {
    heads,
    positions,
    rotary,
    inverse = false,
  }: { heads: HeadLayout; positions: Tensor; rotary: RotaryTable; inverse?: boolean },
): void {
  const { numHeads, numKvHeads, headDim } = heads;
  const rowStride = qkv.width;
  context.device.run("rotary", {
    x: qkv,
    positions,
    cosSin: rotary.cosSin,
    y: qkv,
    numRows: qkv.numRows,
    numHeads: numHeads + numKvHeads,
    headDim,
    rotaryDim: rotary.rotaryDim,
    xRowStride: rowStride,
    yRowStride: rowStride,
    inverse: Number(inverse),
  });
}

export interface AttentionOptions {
  heads: HeadLayout;
  numSequences: number;
  /** Rows of each sequence; of the longest where `cuSeqLens` is given. */
  sequenceLength: number;
  /** i32 (numSequences + 1): where each packed sequence begins. Without it all have sequenceLength rows. */
  cuSeqLens?: Tensor | undefined;
  /** i32 (N); with `rotary` only. */
  positions?: Tensor | undefined;
  rotary?: RotaryTable | undefined;
  /** Factor of the scores; 1 / sqrt(D) by default. */
  scale?: number;
}

/**
 * qkv (N, (H + 2G) D) -> (N, H D). Spends its input: qkv is turned in place and must not be read afterwards by anybody else.
 * Throws ShapeError.
 */
export function selfAttention(context: Context, qkv: Tensor, options: AttentionOptions): Tensor {
  const { heads, numSequences, sequenceLength, cuSeqLens, positions, rotary } = options;
  const { numHeads, numKvHeads, headDim } = heads;
  if (qkv.width !== qkvWidth(heads)) {
    throw new ShapeError(
      "attention",
      `expected rows of ${qkvWidth(heads)} = (H + 2G) D values, got ${qkv.width}`,
    );
  }
  const { numRows } = qkv;
  if (rotary !== undefined) {
    invariant(positions !== undefined, "rotary attention without positions");
    rotateQueriesAndKeys(context, qkv, { heads, positions, rotary });
  }
  const keyStart = numHeads * headDim;
  const valueStart = keyStart + numKvHeads * headDim;
  const layout = {
    cuSeqLens,
    numSequences,
    queryLength: sequenceLength,
    keyLength: sequenceLength,
    numRows,
    numHeads,
    numKvHeads,
    headDim,
    qRowStride: qkv.width,
    kRowStride: qkv.width,
    vRowStride: qkv.width,
    oRowStride: keyStart,
    causal: 1,
    scale: options.scale ?? 1 / Math.sqrt(headDim),
  };
  const o = context.empty([numRows, keyStart], qkv.dtype);
  const logSumExp = context.tape === undefined ? undefined : context.empty([numHeads, numRows], "f32");
  context.device.run("attentionForward", {
    ...layout,
    q: qkv,
    k: qkv.at(keyStart),
    v: qkv.at(valueStart),
    o,
    logSumExp,
  });
  if (logSumExp === undefined) return o;

  record(context, [o], {
    name: "attention",
    inputs: [qkv],
    save: [
      qkv,
      o,
      logSumExp,
      ...(positions === undefined ? [] : [positions]),
      ...(cuSeqLens === undefined ? [] : [cuSeqLens]),
    ],
    backward: ([doutput], [savedQkv, savedOutput, savedLogSumExp]) => {
      if (doutput === undefined) return [];
      const kept = savedQkv.get();
      const dqkv = context.empty(kept.shape, kept.dtype);
      context.device.run("attentionBackward", {
        ...layout,
        q: kept,
        k: kept.at(keyStart),
        v: kept.at(valueStart),
        o: savedOutput.get(),
        doutput,
        logSumExp: savedLogSumExp.get(),
        dq: dqkv,
        dk: dqkv.at(keyStart),
        dv: dqkv.at(valueStart),
      });
      if (rotary !== undefined && positions !== undefined) {
        rotateQueriesAndKeys(context, dqkv, { heads, positions, rotary, inverse: true });
      }
      return [dqkv];
    },
  });
  return o;
}

/** Keys and values of one layer, in slots of fixed-size blocks. */
export interface PagedLayerCache {
  /** (numSlots, G, D); u8 for E4M3 codes. */
  keys: Tensor;
  values: Tensor;
  /** f32 (G, numSlots), of codes. */
  keyScales?: Tensor | undefined;
  valueScales?: Tensor | undefined;
}

/** A layer's cache as operators take it. */
function cacheArguments({ keys, values, keyScales, valueScales }: PagedLayerCache) {
  const [numSlots, numKvHeads, headDim] = keys.shape;
  return {
    kCache: keys,
    vCache: values,
    kScales: keyScales,
    vScales: valueScales,
    numSlots,
    numKvHeads,
    headDim,
  };
}

/** Which rows of a step belong to which sequence, and where their keys and values live (see the operator table). */
export interface PagedBatch {
  numSequences: number;
  /** Bound on the query rows of any sequence: 1 when decoding. */
  maxQueryLength: number;
  /** Row i is sequence i's only one, and no sequence reads what another one writes in this step: one pass does it all. Default false. */
  isDecode?: boolean | undefined;
  blockSize: number;
  maxBlocksPerSequence: number;
  /** i32 (N) */
  positions: Tensor;
  /** i32 (N): where each row's key and value go. */
  slots: Tensor;
  /** i32 (numSequences, maxBlocksPerSequence) */
  blockTables: Tensor;
  /** i32 (numSequences), this step's rows included. */
  contextLengths: Tensor;
  /** i32 (numSequences + 1) */
  queryStarts: Tensor;
  /** Slots that get what others hold, i32 (M) each, after this step's keys and values are written; no source is also a target. */
  copies?: { sources: Tensor; slots: Tensor } | undefined;
}

/** As selfAttention, for inference: keys and values are added to the cache and read from it. Spends qkv. */
export function pagedSelfAttention(
  context: Context,
  qkv: Tensor,
  options: {
    heads: HeadLayout;
    rotary?: RotaryTable | undefined;
    cache: PagedLayerCache;
    batch: PagedBatch;
    scale?: number;
  },
): Tensor {
  const { heads, rotary, cache, batch } = options;
  const { numHeads, numKvHeads, headDim } = heads;
  const { numRows } = qkv;
  const keyStart = numHeads * headDim;
  const written = {
    k: qkv.at(keyStart),
    v: qkv.at(keyStart + numKvHeads * headDim),
    slots: batch.slots,
    ...cacheArguments(cache),
    numRows,
    kRowStride: qkv.width,
    vRowStride: qkv.width,
  };
  const turned = rotary && {
    ...written,
    q: qkv,
    positions: batch.positions,
    cosSin: rotary.cosSin,
    numHeads,
    rotaryDim: rotary.rotaryDim,
    qRowStride: qkv.width,
  };
  const isOnePass = turned !== undefined && batch.isDecode === true && batch.copies === undefined;
  if (!isOnePass) {
    if (turned === undefined) context.device.run("kvCacheWrite", written);
    else context.device.run("rotaryCacheWrite", turned);
    if (batch.copies !== undefined)
      context.device.run("kvCacheCopy", {
        ...batch.copies,
        ...cacheArguments(cache),
        numRows: batch.copies.slots.numElements,
      });
  }
  const o = context.empty([numRows, keyStart], qkv.dtype);
  const attended = {
    q: qkv,
    ...cacheArguments(cache),
    blockTables: batch.blockTables,
    contextLengths: batch.contextLengths,
    queryStarts: batch.queryStarts,
    o,
    numSequences: batch.numSequences,
    numHeads,
    blockSize: batch.blockSize,
    maxBlocksPerSequence: batch.maxBlocksPerSequence,
    qRowStride: qkv.width,
    oRowStride: keyStart,
    scale: options.scale ?? 1 / Math.sqrt(headDim),
  };
  if (isOnePass) context.device.run("rotaryAttentionPaged", { ...turned, ...attended });
  else context.device.run("attentionPaged", { ...attended, maxQueryLength: batch.maxQueryLength });
  return o;
}
