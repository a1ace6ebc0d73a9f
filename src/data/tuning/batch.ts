/** Texts laid out for the decoder: rows of tokens, the token each must give, where each text begins. */
import { invariant } from "../../base/index.ts";
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
  /** Where texts share rows: the row of each of their tokens, text after text as `cuSeqLens` counts them. */
  rowOfToken?: Int32Array | undefined;
  /** Of all texts with what is before them; without padding. */
  numTokens: number;
  /** Rows begin .. end of each text; without those that it shares. */
  texts: RowRange[];
}

export interface RowRange {
  begin: number;
  end: number;
}

export interface LayoutOptions {
  layout: "packed" | "padded";
  padId: number;
  /** Ids before each text: virtual tokens. */
  prefix?: readonly number[];
  /** Rows in all are a multiple of this; the rest is a text of its own that nothing is learnt from. */
  roundTo?: number;
  /**
   * Texts by number, each in one group: those of a group share the rows of their common beginning, where enough are saved. In the packed
   * layout; every text for itself when absent.
   */
  groups?: readonly (readonly number[])[] | undefined;
}

/**
 * Rows are shared from this part of all rows on: attention reads and writes copies of every row of a batch that shares any, which costs about
 * as much time as a fortieth of the rows (docs/decisions/0044-shared-prompts.md).
 */
const leastSharedPart = 1 / 32;

/** Lays out texts; each loses its last token's prediction, which nothing follows. */
export function layOut(texts: readonly EncodedText[], options: LayoutOptions): TextBatch {
  const { layout, prefix = [] } = options;
  const all = texts.map((text) => textRows(text, prefix));
  return layout === "packed" ? packRows(all, options) : padRows(all, options);
}

/** A text's tokens with what is before them, and the token that each must give. */
interface TextRows {
  tokens: Int32Array;
  targets: Int32Array;
}

function textRows({ tokens, isTrained }: EncodedText, prefix: readonly number[]): TextRows {
  const rows = {
    tokens: new Int32Array(prefix.length + tokens.length),
    targets: new Int32Array(prefix.length + tokens.length).fill(ignoredTarget),
  };
  rows.tokens.set(prefix);
  rows.tokens.set(tokens, prefix.length);
  for (let i = 0; i < tokens.length; i++) {
    const row = prefix.length + i - 1;
    if (row >= 0 && isTrained[i] === 1) rows.targets[row] = tokens[i];
  }
  return rows;
}

const countTokens = (texts: readonly TextRows[]): number =>
  texts.reduce((total, { tokens }) => total + tokens.length, 0);

const longestOf = (texts: readonly TextRows[]): number =>
  texts.reduce((longest, { tokens }) => Math.max(longest, tokens.length), 1);

/** Rows of a batch, filled from the first on. */
class BatchRows {
  readonly tokens: Int32Array;
  readonly targets: Int32Array;
  readonly positions: Int32Array;
  /** How many are filled. */
  numFilled = 0;

  constructor(numRows: number, padId: number) {
    this.tokens = new Int32Array(numRows).fill(padId);
    this.targets = new Int32Array(numRows).fill(ignoredTarget);
    this.positions = new Int32Array(numRows);
  }

  /** Adds the rows of a text from its token `from` up to `to`. */
  add({ tokens, targets }: TextRows, from: number, to: number): RowRange {
    const begin = this.numFilled;
    this.tokens.set(tokens.subarray(from, to), begin);
    this.targets.set(targets.subarray(from, to), begin);
    return { begin, end: this.fill(to - from, from) };
  }

  /** Leaves the next rows as they are, padding, but for positions from `position` on. Gives their end. */
  fill(count: number, position: number): number {
    for (let i = 0; i < count; i++) this.positions[this.numFilled++] = position + i;
    return this.numFilled;
  }
}

function padRows(texts: readonly TextRows[], { padId }: LayoutOptions): TextBatch {
  const longest = longestOf(texts);
  const rows = new BatchRows(longest * texts.length, padId);
  const ranges = texts.map((text) => {
    const { length } = text.tokens;
    const { begin } = rows.add(text, 0, length);
    return { begin, end: rows.fill(longest - length, length) };
  });
  const { tokens, targets, positions } = rows;
  return {
    tokens,
    targets,
    positions,
    numSequences: texts.length,
    sequenceLength: longest,
    numTokens: countTokens(texts),
    texts: ranges,
  };
}

function packRows(
  texts: readonly TextRows[],
  { padId, roundTo = 16, groups: wanted }: LayoutOptions,
): TextBatch {
  const numTokens = countTokens(texts);
  const groups = groupsOf(texts, { wanted, numTokens });
  const numSaved = countSaved(groups);
  const numUsed = numTokens - numSaved;
  const numRows = Math.ceil(Math.max(1, numUsed) / roundTo) * roundTo;
  const numRest = numRows - numUsed;
  const rows = new BatchRows(numRows, padId);
  const rowOfToken = new Int32Array(numTokens + numRest);
  const ranges: RowRange[] = [];
  const starts = [0];
  let token = 0;
  for (const { members, numShared } of groups) {
    const shared = rows.add(texts[members[0]], 0, numShared);
    for (const member of members) {
      const { length } = texts[member].tokens;
      const own = rows.add(texts[member], numShared, length);
      for (let row = shared.begin; row < shared.end; row++) rowOfToken[token++] = row;
      for (let row = own.begin; row < own.end; row++) rowOfToken[token++] = row;
      ranges[member] = own;
      starts.push(token);
    }
  }
  if (numRest > 0) {
    for (let row = numUsed; row < numRows; row++) rowOfToken[token++] = row;
    rows.fill(numRest, 0);
    starts.push(token);
  }
  const { tokens, targets, positions } = rows;
  return {
    tokens,
    targets,
    positions,
    numSequences: starts.length - 1,
    sequenceLength: Math.max(longestOf(texts), numRest),
    cuSeqLens: Int32Array.from(starts),
    ...(numSaved === 0 ? {} : { rowOfToken }),
    numTokens,
    texts: ranges,
  };
}

/** Texts by number, and how many rows they begin with in common. */
interface TextGroup {
  members: readonly number[];
  numShared: number;
}

function groupsOf(
  texts: readonly TextRows[],
  { wanted, numTokens }: { wanted: LayoutOptions["groups"]; numTokens: number },
): TextGroup[] {
  const apart = texts.map((_, text) => ({ members: [text], numShared: 0 }));
  if (wanted === undefined) return apart;
  const numbers = wanted.flat();
  const isPartition = numbers.length === texts.length && new Set(numbers).size === texts.length;
  invariant(isPartition, "every text is in one group");
  const groups = wanted.map((members) => ({
    members,
    numShared: commonBeginning(members.map((text) => texts[text])),
  }));
  const numSaved = countSaved(groups);
  return numSaved > 0 && numSaved >= leastSharedPart * numTokens ? groups : apart;
}

/** Rows less than tokens. */
const countSaved = (groups: readonly TextGroup[]): number =>
  groups.reduce((total, { members, numShared }) => total + (members.length - 1) * numShared, 0);

/** How many rows texts begin with that are the same in all of them and that nothing is learnt at: a row can have one target. */
function commonBeginning(texts: readonly TextRows[]): number {
  const [{ tokens }] = texts;
  const isCommon = (row: number): boolean =>
    texts.every((text) => text.tokens[row] === tokens[row] && text.targets[row] === ignoredTarget);
  let length = 0;
  while (length < tokens.length && isCommon(length)) length++;
  return length;
}
