/**
 * Counts words, chooses the characters that get a piece of their own, and turns the words into sequences of symbols to learn from.
 * Knows nothing of merges. Invariant: all of it depends on the multiset of words alone.
 */
import { codePointAt, lengthFromFirstByte } from "../bpe/utf8.ts";
import { wordEnd } from "../bpe/words.ts";
import { WordTable } from "../bpe/wordTable.ts";

/** Words are cut here for learning (not for encoding): an endless line of one character must not cost more than many words. */
const longestSequence = 128;

/** Sequences of symbols one after the other: number s is `symbols[starts[s], starts[s + 1])` and counts `counts[s]` times. */
export interface SymbolSequences {
  symbols: Int32Array;
  starts: Int32Array;
  counts: Float64Array;
}

export class WordCounts {
  readonly #words = new WordTable(1 << 16);
  #counts = new Float64Array(1 << 16);

  get size(): number {
    return this.#words.size;
  }

  /** Counts the words of valid UTF-8. */
  add(bytes: Uint8Array): void {
    const words = this.#words;
    for (let position = 0; position < bytes.length;) {
      const start = position;
      position = wordEnd(bytes, start, bytes.length);
      const word = words.intern(bytes, start, position);
      if (word >= this.#counts.length) {
        const grown = new Float64Array(this.#counts.length * 2);
        grown.set(this.#counts);
        this.#counts = grown;
      }
      this.#counts[word]++;
    }
  }

  /**
   * The most frequent characters (code points) that together make up `coverage` of all text, at most `limit`, in order of code
   * point. Of equally frequent ones the lower code point goes first.
   */
  alphabet(coverage: number, limit: number): number[] {
    const counts = this.#characterCounts();
    let total = 0;
    for (const count of counts.values()) total += count;
    const byFrequency = [...counts].sort(([a, countA], [b, countB]) => countB - countA || a - b);
    const chosen: number[] = [];
    let covered = 0;
    for (const [codePoint, count] of byFrequency) {
      if (chosen.length >= limit || covered >= total * coverage) break;
      covered += count;
      chosen.push(codePoint);
    }
    return chosen.sort((a, b) => a - b);
  }

  #characterCounts(): Map<number, number> {
    const { bytes, offsets } = this.#words;
    const basicPlane = new Float64Array(0x10000);
    const counts = new Map<number, number>();
    for (let word = 0; word < this.size; word++) {
      const count = this.#counts[word];
      for (let position = offsets[word]; position < offsets[word + 1];) {
        const length = lengthFromFirstByte(bytes[position]);
        const codePoint = codePointAt(bytes, position, length);
        if (codePoint < 0x10000) basicPlane[codePoint] += count;
        else counts.set(codePoint, (counts.get(codePoint) ?? 0) + count);
        position += length;
      }
    }
    basicPlane.forEach((count, codePoint) => {
      if (count > 0) counts.set(codePoint, count);
    });
    return counts;
  }

  /** The words as sequences of `idOf` their characters. A character without an id ends a sequence: its bytes never merge. */
  sequences(idOf: ReadonlyMap<number, number>): SymbolSequences {
    const { bytes, offsets } = this.#words;
    const basicPlane = new Int32Array(0x10000).fill(-1);
    for (const [codePoint, id] of idOf) if (codePoint < 0x10000) basicPlane[codePoint] = id;
    const symbols = new Int32Array(this.#words.sizeBytes);
    const starts: number[] = [0];
    const counts: number[] = [];
    let to = 0;
    const close = (count: number): void => {
      const from = starts[starts.length - 1];
      // A single symbol has no pair to learn from.
      if (to - from < 2) {
        to = from;
        return;
      }
      starts.push(to);
      counts.push(count);
    };
    for (let word = 0; word < this.size; word++) {
      const count = this.#counts[word];
      for (let position = offsets[word]; position < offsets[word + 1];) {
        const length = lengthFromFirstByte(bytes[position]);
        const codePoint = codePointAt(bytes, position, length);
        const id = codePoint < 0x10000 ? basicPlane[codePoint] : (idOf.get(codePoint) ?? -1);
        if (id < 0 || to - starts[starts.length - 1] >= longestSequence) close(count);
        if (id >= 0) symbols[to++] = id;
        position += length;
      }
      close(count);
    }
    return {
      symbols: symbols.subarray(0, to),
      starts: Int32Array.from(starts),
      counts: Float64Array.from(counts),
    };
  }
}
