/**
 * The unigram model: of all ways to cut a text into pieces, the one with the highest sum of scores, by the Viterbi algorithm over
 * bytes. Knows nothing of normalisation. Invariant: ids are those of the C++ library (0.2.3), for which sums are kept as it keeps
 * them, in 32-bit floats from the beginning of the text on, counted from zero again behind `largestSum`.
 * Sources: T. Kudo, "Subword Regularization" (2018), section 3.2; google/sentencepiece, unigram model.
 */
import { lengthFromFirstByte } from "../bpe/utf8.ts";
import type { IdList } from "./idList.ts";
import { pieceType } from "./modelFile.ts";
import type { PieceEncoder, PieceIndex } from "./pieceIndex.ts";

/** How much worse than the worst piece an unknown character is. */
const unknownPenalty = 10;
/** The least positive normal float, from which the C++ library seeks the highest score. */
const leastFloat = 2 ** -126;
/** Sums beyond it are made smaller by the best one, lest floats lose the difference between ways. */
const largestSum = 100_000;
const largestFloat = (2 - 2 ** -23) * 2 ** 127;

export class UnigramEncoder implements PieceEncoder {
  readonly #index: PieceIndex;
  readonly #unknownScore: number;
  readonly #highestScore: number;
  /** Of the best way that ends before each byte: its score, and its last piece's start (-1: no way yet) and id. */
  #bestScores = new Float32Array(0);
  #bestStarts = new Int32Array(0);
  #bestIds = new Int32Array(0);
  /** The furthest end of any piece so far. */
  #lastEnd = 0;

  constructor(index: PieceIndex) {
    this.#index = index;
    const { scores, types } = index.model;
    const normal = scores.filter((_, id) => types[id] === pieceType.normal);
    const lowest = normal.reduce((least, score) => Math.min(least, score), largestFloat);
    this.#unknownScore = Math.fround(lowest - unknownPenalty);
    this.#highestScore = normal.reduce((most, score) => Math.max(most, score), leastFloat);
  }

  encode(text: Uint8Array, out: IdList): void {
    this.#prepare(text.length);
    const { unkId } = this.#index.model;
    for (let start = 0; start < text.length;) {
      if (Math.abs(this.#bestScores[start]) > largestSum) this.#countAnew(start);
      const length = Math.min(lengthFromFirstByte(text[start]), text.length - start);
      if (!this.#tryPieces(text, start, length))
        this.#offer(start + length, {
          score: Math.fround(this.#bestScores[start] + this.#unknownScore),
          start,
          id: unkId,
        });
      start += length;
    }
    this.#emitBest(text, out);
  }

  /** Offers every piece that begins at `start`; whether one of them is the character of `length` bytes there. */
  #tryPieces(text: Uint8Array, start: number, length: number): boolean {
    const { trie, model } = this.#index;
    const base = this.#bestScores[start];
    let hasCharacter = false;
    let node = 0;
    for (let end = start + 1; end <= text.length; end++) {
      node = trie.step(node, text[end - 1]);
      if (node < 0) break;
      const id = trie.idAt(node);
      if (id < 0 || model.types[id] === pieceType.unused) continue;
      if (end - start === length) hasCharacter = true;
      // User-defined pieces get nearly nothing taken off, so that they are always chosen.
      const score =
        model.types[id] === pieceType.userDefined
          ? Math.fround((end - start) * this.#highestScore) - 0.1
          : model.scores[id];
      this.#offer(end, { score: Math.fround(Math.fround(score) + base), start, id });
    }
    return hasCharacter;
  }

  #offer(end: number, { score, start, id }: { score: number; start: number; id: number }): void {
    if (this.#bestStarts[end] >= 0 && score <= this.#bestScores[end]) return;
    this.#bestScores[end] = score;
    this.#bestStarts[end] = start;
    this.#bestIds[end] = id;
    this.#lastEnd = Math.max(this.#lastEnd, end);
  }

  /** Takes the best sum that ends before `start` from all sums from there on. */
  #countAnew(start: number): void {
    const base = this.#bestScores[start];
    for (let end = start; end <= this.#lastEnd; end++)
      if (this.#bestStarts[end] >= 0) this.#bestScores[end] -= base;
  }

  /** Follows the best way from its end; its pieces are then emitted in the order of the text. */
  #emitBest(text: Uint8Array, out: IdList): void {
    // The way is turned around in place: each start is made to lead on to its piece's end.
    const starts = this.#bestStarts;
    let next = -1;
    for (let end = text.length; end > 0;) {
      const start = starts[end];
      starts[end] = next;
      next = end;
      end = start;
    }
    let start = 0;
    for (let end = next; end > 0; end = starts[end]) {
      this.#index.emit(this.#bestIds[end], text, { start, end, out });
      start = end;
    }
  }

  #prepare(length: number): void {
    if (this.#bestStarts.length < length + 1) {
      const capacity = Math.max(length + 1, 1 << 12);
      this.#bestScores = new Float32Array(capacity);
      this.#bestStarts = new Int32Array(capacity);
      this.#bestIds = new Int32Array(capacity);
    }
    this.#lastEnd = 0;
    this.#bestScores[0] = 0;
    this.#bestStarts.fill(-1, 0, length + 1);
  }
}
