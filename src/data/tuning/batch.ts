/** Texts laid out for the decoder: rows of tokens, the token each must give, where each text begins. */
import { ignoredTarget } from "../loader.ts";
import type { EncodedText } from "./encode.ts";

export interface TextBatch {
  tokens: Int32Array;
  targets: Int32Array;
  positions: Int32Array;
  numSequences: number;
  /** The longest. */
  sequenceLength: number;
  /** Absent in the padded layout. */
  cuSeqLens?: Int32Array | undefined;
}

export interface LayoutOptions {
  layout: "packed" | "padded";
  padId: number;
  /** Ids before each text: virtual tokens. */
  prefix?: readonly number[];
  /** Rows in all are a multiple of this; the rest is a text of its own that nothing is learnt from. */
  roundTo?: number;
}

/** Lays out texts; each loses its last token's prediction, which nothing follows. */
export function layOut(texts: readonly EncodedText[], options: LayoutOptions): TextBatch {
  const { layout, padId, prefix = [], roundTo = 16 } = options;
  const lengths = texts.map(({ tokens }) => prefix.length + tokens.length);
  const longest = Math.max(1, ...lengths);
  const used = lengths.reduce((total, length) => total + length, 0);
  const isPacked = layout === "packed";
  const numRows = isPacked ? Math.ceil(Math.max(1, used) / roundTo) * roundTo : longest * texts.length;
  const tokens = new Int32Array(numRows).fill(padId);
  const targets = new Int32Array(numRows).fill(ignoredTarget);
  const positions = new Int32Array(numRows);
  const starts = [0];
  let begin = 0;
  for (const [index, text] of texts.entries()) {
    tokens.set(prefix, begin);
    tokens.set(text.tokens, begin + prefix.length);
    for (let i = 0; i < text.tokens.length; i++) {
      const row = begin + prefix.length + i - 1;
      if (row >= begin && text.isTrained[i] === 1) targets[row] = text.tokens[i];
    }
    const end = begin + (isPacked ? lengths[index] : longest);
    for (let row = begin; row < end; row++) positions[row] = row - begin;
    begin = end;
    starts.push(begin);
  }
  if (!isPacked) return { tokens, targets, positions, numSequences: texts.length, sequenceLength: longest };
  if (begin < numRows) {
    for (let row = begin; row < numRows; row++) positions[row] = row - begin;
    starts.push(numRows);
  }
  const cuSeqLens = Int32Array.from(starts);
  return {
    tokens,
    targets,
    positions,
    numSequences: starts.length - 1,
    sequenceLength: Math.max(longest, numRows - begin),
    cuSeqLens,
  };
}
