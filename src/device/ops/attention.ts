/** Rotary positions, attention and its cache. Conventions: ../ops.ts. */
import type { OpSpec } from "./spec.ts";

/** What every operator on a paged cache says of it. */
const caches =
  "Caches (numSlots, G, D) are of the dtype of the other floats, or both u8: E4M3 codes, and then, and only then, kScales and vScales f32 (G, numSlots) are there, " +
  "a scale for each head of each slot, made of the head's D values as quantiseRows makes a row's. A cached value is its scale times its code's.";

export const attentionOps = {
  rotary: {
    summary:
      "Rotates the first rotaryDim components of each head by its row's position: pair (i, i + rotaryDim / 2) is turned by the angle whose " +
      "cosine and sine stand in cosSin[position, i] and cosSin[position, rotaryDim / 2 + i]; inverse = 1 turns back. The other components are copied. " +
      "x, y: row r, head h starts at r * rowStride + h * headDim; positions i32 (N); cosSin f32 (maxPositions, rotaryDim). y may be x.",
    tensors: { x: "read", positions: "read", cosSin: "read", y: "write" },
    integers: ["numRows", "numHeads", "headDim", "rotaryDim", "xRowStride", "yRowStride", "inverse"],
    floats: [],
  },
  attentionForward: {
    summary:
      "o = softmax(scale * q k^T) v per head, in memory linear in the lengths. q (rows, H, D), k, v (rows, G, D), head h uses key/value head " +
      "floor(h * G / H). cuSeqLens null: numSequences sequences, each of queryLength query rows and keyLength key rows; causal: query t sees keys " +
      "s <= t + keyLength - queryLength. cuSeqLens i32 (numSequences + 1): sequence i is rows cuSeqLens[i] .. cuSeqLens[i + 1] of q, k and v alike and " +
      "queryLength = keyLength is the longest. logSumExp f32 (H, total query rows), natural log of the sum of exp(scale * score).",
    tensors: { q: "read", k: "read", v: "read", cuSeqLens: "read?", o: "write", logSumExp: "write?" },
    integers: [
      "numSequences",
      "queryLength",
      "keyLength",
      "numRows",
      "numHeads",
      "numKvHeads",
      "headDim",
      "qRowStride",
      "kRowStride",
      "vRowStride",
      "oRowStride",
      "causal",
    ],
    floats: ["scale"],
  },
  attentionBackward: {
    summary:
      "Gradients of attentionForward: dq, dk, dv (assigned) from doutput (the gradient of o, with o's row stride), and q, k, v, o, logSumExp of the forward pass. " +
      "dq, dk, dv have the row strides of q, k, v. Gradients of grouped heads are summed over the group.",
    tensors: {
      q: "read",
      k: "read",
      v: "read",
      o: "read",
      doutput: "read",
      logSumExp: "read",
      cuSeqLens: "read?",
      dq: "write",
      dk: "write",
      dv: "write",
    },
    integers: [
      "numSequences",
      "queryLength",
      "keyLength",
      "numRows",
      "numHeads",
      "numKvHeads",
      "headDim",
      "qRowStride",
      "kRowStride",
      "vRowStride",
      "oRowStride",
      "causal",
    ],
    floats: ["scale"],
  },
  kvCacheWrite: {
    summary:
      "kCache[slots[row]] = k[row], vCache[slots[row]] = v[row]; a negative slot skips its row. k, v: row r starts at r * rowStride, (G, D) values; " +
      `slots i32 (N), a slot is block * blockSize + offset. ${caches}`,
    tensors: {
      k: "read",
      v: "read",
      slots: "read",
      kCache: "update",
      vCache: "update",
      kScales: "update?",
      vScales: "update?",
    },
    integers: ["numRows", "numSlots", "numKvHeads", "headDim", "kRowStride", "vRowStride"],
    floats: [],
  },
  kvCacheCopy: {
    summary:
      "What slots[row] holds becomes what sources[row] holds, keys, values and their scales bit for bit; no source is also a target, and no target comes twice. " +
      `sources, slots i32 (N). ${caches}`,
    tensors: {
      sources: "read",
      slots: "read",
      kCache: "update",
      vCache: "update",
      kScales: "update?",
      vScales: "update?",
    },
    integers: ["numRows", "numSlots", "numKvHeads", "headDim"],
    floats: [],
  },
  rotaryCacheWrite: {
    summary:
      "rotary (inverse = 0) of q in place and of k, and kvCacheWrite of the turned k and of v, bit for bit, in one pass: q[row] is turned by positions[row], " +
      "also where a negative slot skips the row's key and value. k itself stays as it was. q, k, v: row r starts at r * rowStride, (H, D) and (G, D) values. " +
      `For codes the turned k is rounded to its dtype first. ${caches}`,
    tensors: {
      q: "update",
      k: "read",
      v: "read",
      positions: "read",
      cosSin: "read",
      slots: "read",
      kCache: "update",
      vCache: "update",
      kScales: "update?",
      vScales: "update?",
    },
    integers: [
      "numRows",
      "numSlots",
      "numHeads",
      "numKvHeads",
      "headDim",
      "rotaryDim",
      "qRowStride",
      "kRowStride",
      "vRowStride",
    ],
    floats: [],
  },
  attentionPaged: {
    summary:
      "Causal attention over a paged cache. Sequence i owns query rows queryStarts[i] .. queryStarts[i + 1] (i32, numSequences + 1), which are the last " +
      "positions of its context of contextLengths[i] tokens (i32); token s of it lies in slot blockTables[i, floor(s / blockSize)] * blockSize + s mod blockSize. " +
      "q, o (rows, H, D); blockTables i32 (numSequences, maxBlocksPerSequence). maxQueryLength bounds the query rows of any sequence. " +
      caches,
    tensors: {
      q: "read",
      kCache: "read",
      vCache: "read",
      kScales: "read?",
      vScales: "read?",
      blockTables: "read",
      contextLengths: "read",
      queryStarts: "read",
      o: "write",
    },
    integers: [
      "numSequences",
      "numSlots",
      "maxQueryLength",
      "numHeads",
      "numKvHeads",
      "headDim",
      "blockSize",
      "maxBlocksPerSequence",
      "qRowStride",
      "oRowStride",
    ],
    floats: ["scale"],
  },
  rotaryAttentionPaged: {
    summary:
      "A decoding layer's rotaryCacheWrite and attentionPaged, bit for bit, in one: row i is the one query row of sequence i, at its last position, and slots[i] is where " +
      "that position lies by the block table, or negative where its key and value are there already. No sequence reads a slot that another row of the call " +
      `writes. queryStarts counts 0 .. numSequences. Spends q, which is afterwards as it was or turned. ${caches}`,
    tensors: {
      q: "update",
      k: "read",
      v: "read",
      positions: "read",
      cosSin: "read",
      slots: "read",
      kCache: "update",
      vCache: "update",
      kScales: "update?",
      vScales: "update?",
      blockTables: "read",
      contextLengths: "read",
      queryStarts: "read",
      o: "write",
    },
    integers: [
      "numSequences",
      "numSlots",
      "numHeads",
      "numKvHeads",
      "headDim",
      "rotaryDim",
      "blockSize",
      "maxBlocksPerSequence",
      "qRowStride",
      "kRowStride",
      "vRowStride",
      "oRowStride",
    ],
    floats: ["scale"],
  },
} as const satisfies Record<string, OpSpec>;
