/** Reference: the paged key/value cache (Kwon et al., "PagedAttention", 2023): writing to slots, and causal attention over them. */
import { invariant } from "../../base/index.ts";
import type { OpArguments } from "../contract.ts";
import { softmaxInPlace } from "./attention.ts";
import { cachedHeads, readSlots, writeSlot } from "./cachedHeads.ts";
import { copyWithin, read, readRows, writeRows } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

/** Keys and values of one sequence's context, gathered from its blocks: (contextLength, G, D) each. */
function gatherContext(
  args: OpArguments<"attentionPaged">,
  sequence: number,
  contextLength: number,
): { keys: Float64Array; values: Float64Array } {
  const { blockTables, numKvHeads, headDim, blockSize, maxBlocksPerSequence } = args;
  const cached = cachedHeads(args);
  const width = numKvHeads * headDim;
  const numBlocks = Math.ceil(contextLength / blockSize);
  invariant(
    numBlocks <= maxBlocksPerSequence,
    `a context of ${contextLength} tokens in ${maxBlocksPerSequence} blocks`,
  );
  const blocks = read(blockTables, numBlocks, sequence * maxBlocksPerSequence);
  const keys = new Float64Array(contextLength * width);
  const values = new Float64Array(contextLength * width);
  for (const [index, block] of blocks.entries()) {
    const first = index * blockSize;
    const numTokens = Math.min(blockSize, contextLength - first);
    keys.set(readSlots(cached.keys, block * blockSize, numTokens), first * width);
    values.set(readSlots(cached.values, block * blockSize, numTokens), first * width);
  }
  return { keys, values };
}

export const cacheKernels = {
  kvCacheWrite: (args) => {
    const { k, v, slots, numRows, numKvHeads, headDim, kRowStride, vRowStride } = args;
    const { keys, values } = cachedHeads(args);
    const width = numKvHeads * headDim;
    const rowSlots = read(slots, numRows);
    for (let row = 0; row < numRows; row++) {
      const slot = rowSlots[row];
      if (slot < 0) continue;
      writeSlot(keys, slot, { heads: read(k, width, row * kRowStride), dtype: k.dtype });
      writeSlot(values, slot, { heads: read(v, width, row * vRowStride), dtype: v.dtype });
    }
  },

  kvCacheCopy: (args) => {
    const { keys, values } = cachedHeads(args);
    const width = args.numKvHeads * args.headDim;
    const sources = read(args.sources, args.numRows);
    const slots = read(args.slots, args.numRows);
    for (const [row, source] of sources.entries()) {
      for (const { cache, scales, numSlots, numKvHeads } of [keys, values]) {
        copyWithin(cache, { count: width, source: source * width, target: slots[row] * width });
        if (scales === undefined) continue;
        for (let head = 0; head < numKvHeads; head++) {
          const first = head * numSlots;
          copyWithin(scales, { count: 1, source: first + source, target: first + slots[row] });
        }
      }
    }
  },

  attentionPaged: (args) => {
    const { q, o, numSequences, numHeads, numKvHeads, headDim, scale } = args;
    const starts = read(args.queryStarts, numSequences + 1);
    const contextLengths = read(args.contextLengths, numSequences);
    const numRows = starts[numSequences];
    const width = numHeads * headDim;
    const kvWidth = numKvHeads * headDim;
    const queries = readRows(q, { numRows, width, stride: args.qRowStride });
    const out = new Float64Array(numRows * width);
    for (let sequence = 0; sequence < numSequences; sequence++) {
      const queryLength = starts[sequence + 1] - starts[sequence];
      if (queryLength === 0) continue;
      invariant(
        queryLength <= args.maxQueryLength && queryLength <= contextLengths[sequence],
        `${queryLength} query rows, at most ${args.maxQueryLength}, in a context of ${contextLengths[sequence]}`,
      );
      const { keys, values } = gatherContext(args, sequence, contextLengths[sequence]);
      for (let t = 0; t < queryLength; t++) {
        const numKeys = contextLengths[sequence] - queryLength + t + 1;
        for (let head = 0; head < numHeads; head++) {
          const queryAt = (starts[sequence] + t) * width + head * headDim;
          const kvAt = Math.floor((head * numKvHeads) / numHeads) * headDim;
          const weights = new Float64Array(numKeys);
          for (let s = 0; s < numKeys; s++) {
            let score = 0;
            for (let i = 0; i < headDim; i++) score += queries[queryAt + i] * keys[s * kvWidth + kvAt + i];
            weights[s] = scale * score;
          }
          softmaxInPlace(weights);
          for (let s = 0; s < numKeys; s++) {
            for (let i = 0; i < headDim; i++) out[queryAt + i] += weights[s] * values[s * kvWidth + kvAt + i];
          }
        }
      }
    }
    writeRows(o, out, { numRows, width, stride: args.oRowStride });
  },
} satisfies Partial<ReferenceKernels>;
