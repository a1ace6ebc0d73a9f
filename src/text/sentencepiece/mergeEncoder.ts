/**
 * Byte-pair encoding as SentencePiece does it: of all neighbours that together are a piece, those of the highest score are joined
 * first, of equals the leftmost. Knows nothing of normalisation. Invariants: ids are those of the C++ library; what is remembered
 * of earlier texts never changes them.
 * Source: R. Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units" (2016); google/sentencepiece, BPE model.
 */
import { RankHeap } from "../bpe/rankHeap.ts";
import { lengthFromFirstByte } from "../bpe/utf8.ts";
import { WordTable } from "../bpe/wordTable.ts";
import { IdList } from "./idList.ts";
import { type SentencePieceModel, isReserved, pieceType } from "./modelFile.ts";
import { isMetaspace, metaspace } from "./normalizer.ts";
import type { PieceEncoder, PieceIndex } from "./pieceIndex.ts";

/** Words of more bytes are not remembered, and memory is cleared at so many words. */
const longestRemembered = 64;
const mostRemembered = 1 << 15;

export class MergeEncoder implements PieceEncoder {
  readonly #index: PieceIndex;
  /** Of each piece its place in the order of merges; pieces of equal score share one. */
  readonly #ranks: Int32Array;
  /** No piece reaches from one word into the next, so that words can be encoded, and remembered, one by one. */
  readonly #areWordsApart: boolean;
  readonly #words = new WordTable();
  #wordIds: Int32Array[] = [];
  readonly #wordOut: IdList;
  readonly #heap = new RankHeap();
  #symbols = new Symbols(256);
  /** For unused pieces: what they were last about to be joined from, [start, middle, end) of the text. */
  readonly #parts = new Map<number, readonly [start: number, middle: number, end: number]>();

  constructor(index: PieceIndex) {
    this.#index = index;
    this.#ranks = ranksOf(index.model.scores);
    this.#areWordsApart = areWordsApart(index.model);
    this.#wordOut = new IdList(index.model.unkId);
  }

  encode(text: Uint8Array, out: IdList): void {
    this.#parts.clear();
    if (!this.#areWordsApart) {
      this.#encodeRange(text, { start: 0, end: text.length, out });
      return;
    }
    for (let start = 0; start < text.length;) {
      const end = endOfWord(text, start);
      if (end - start > longestRemembered) this.#encodeRange(text, { start, end, out });
      else for (const id of this.#remembered(text, start, end)) out.push(id);
      start = end;
    }
  }

  #remembered(text: Uint8Array, start: number, end: number): Int32Array {
    if (this.#words.size >= mostRemembered) {
      this.#words.clear();
      this.#wordIds = [];
    }
    const word = this.#words.intern(text, start, end);
    if (word === this.#wordIds.length) {
      this.#wordOut.clear();
      this.#encodeRange(text, { start, end, out: this.#wordOut });
      this.#wordIds.push(this.#wordOut.toArray());
    }
    return this.#wordIds[word];
  }

  #encodeRange(text: Uint8Array, { start, end, out }: { start: number; end: number; out: IdList }): void {
    const numSymbols = this.#cut(text, start, end);
    if (numSymbols === 0) return;
    for (let left = 0; left + 1 < numSymbols; left++) this.#consider(text, left);
    this.#mergeAll(text);
    const { starts, ends, nexts } = this.#symbols;
    for (let at = 0; at >= 0; at = nexts[at]) this.#emit(text, { start: starts[at], end: ends[at], out });
  }

  /** Makes each character, and each user-defined piece, a symbol; gives their number. */
  #cut(text: Uint8Array, start: number, end: number): number {
    const { trie, userDefined } = this.#index;
    let count = 0;
    for (let position = start; position < end;) {
      const kept = userDefined?.longestMatch(text, position, end) ?? 0;
      const to = Math.min(position + (kept > 0 ? kept : lengthFromFirstByte(text[position])), end);
      if (count === this.#symbols.capacity) this.#symbols = this.#symbols.grown();
      const { starts, ends, nodes, nexts, previous, merged } = this.#symbols;
      starts[count] = position;
      ends[count] = to;
      // Without a node it is joined with nothing.
      nodes[count] = kept > 0 ? -1 : trie.walk(0, text, { start: position, end: to });
      this.#symbols.isFrozen[count] = kept > 0 ? 1 : 0;
      previous[count] = count - 1;
      nexts[count] = to === end ? -1 : count + 1;
      merged[count] = -1;
      position = to;
      count++;
    }
    return count;
  }

  #mergeAll(text: Uint8Array): void {
    const heap = this.#heap;
    const { starts, ends, nodes, nexts, previous, merged } = this.#symbols;
    while (heap.size > 0) {
      const rank = heap.topRank;
      const left = heap.topPosition;
      heap.pop();
      // Entries of pairs that have changed meanwhile; a dead symbol has no pair.
      if (merged[left] < 0 || this.#ranks[merged[left]] !== rank) continue;
      const right = nexts[left];
      nodes[left] = this.#index.trie.walk(nodes[left], text, { start: starts[right], end: ends[right] });
      ends[left] = ends[right];
      nexts[left] = nexts[right];
      if (nexts[left] >= 0) previous[nexts[left]] = left;
      merged[right] = -1;
      if (previous[left] >= 0) this.#consider(text, previous[left]);
      this.#consider(text, left);
    }
  }

  /** Puts the pair of `left` and its neighbour on the heap if together they are a piece. */
  #consider(text: Uint8Array, left: number): void {
    const { starts, ends, nodes, nexts, isFrozen, merged } = this.#symbols;
    const right = nexts[left];
    merged[left] = -1;
    if (right < 0 || nodes[left] < 0 || isFrozen[right] === 1) return;
    const { trie, model } = this.#index;
    const id = trie.idAt(trie.walk(nodes[left], text, { start: starts[right], end: ends[right] }));
    if (id < 0) return;
    merged[left] = id;
    this.#heap.push(this.#ranks[id], left);
    if (model.types[id] === pieceType.unused) this.#parts.set(id, [starts[left], starts[right], ends[right]]);
  }

  /** Emits a symbol; an unused piece is taken apart again. */
  #emit(text: Uint8Array, { start, end, out }: { start: number; end: number; out: IdList }): void {
    const id = this.#index.idOf(text, start, end);
    const parts = this.#index.model.types[id] === pieceType.unused ? this.#parts.get(id) : undefined;
    if (parts === undefined) {
      this.#index.emit(id, text, { start, end, out });
      return;
    }
    this.#emit(text, { start: parts[0], end: parts[1], out });
    this.#emit(text, { start: parts[1], end: parts[2], out });
  }
}

/** The symbols of a text as a linked list in arrays. */
class Symbols {
  readonly capacity: number;
  readonly starts: Int32Array;
  readonly ends: Int32Array;
  /** Of each symbol its trie node, or -1. */
  readonly nodes: Int32Array;
  readonly nexts: Int32Array;
  readonly previous: Int32Array;
  readonly isFrozen: Uint8Array;
  /** The piece that a symbol and the next one make, or -1. */
  readonly merged: Int32Array;

  constructor(capacity: number) {
    this.capacity = capacity;
    this.starts = new Int32Array(capacity);
    this.ends = new Int32Array(capacity);
    this.nodes = new Int32Array(capacity);
    this.nexts = new Int32Array(capacity);
    this.previous = new Int32Array(capacity);
    this.isFrozen = new Uint8Array(capacity);
    this.merged = new Int32Array(capacity);
  }

  grown(): Symbols {
    const larger = new Symbols(this.capacity * 2);
    larger.starts.set(this.starts);
    larger.ends.set(this.ends);
    larger.nodes.set(this.nodes);
    larger.nexts.set(this.nexts);
    larger.previous.set(this.previous);
    larger.isFrozen.set(this.isFrozen);
    larger.merged.set(this.merged);
    return larger;
  }
}

function ranksOf(scores: Float32Array): Int32Array {
  const order = Int32Array.from(scores, (_, id) => id).sort((a, b) => scores[b] - scores[a]);
  const ranks = new Int32Array(scores.length);
  for (let i = 1; i < order.length; i++)
    ranks[order[i]] = ranks[order[i - 1]] + (scores[order[i]] === scores[order[i - 1]] ? 0 : 1);
  return ranks;
}

/** Words begin at a "▁" behind anything else. Unused pieces are taken apart by what stood last in the whole text. */
function areWordsApart({ pieceBytes, types }: SentencePieceModel): boolean {
  return pieceBytes.every(
    (bytes, id) =>
      isReserved(types[id]) || (types[id] !== pieceType.unused && endOfWord(bytes, 0) === bytes.length),
  );
}

function endOfWord(text: Uint8Array, start: number): number {
  let position = start;
  while (isMetaspace(text, position)) position += metaspace.length;
  while (position < text.length && !isMetaspace(text, position)) position++;
  return position;
}
