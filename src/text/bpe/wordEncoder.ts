/**
 * Ids of valid UTF-8: words, a memory of words already seen, merges. The hot path of encoding; knows nothing of special tokens
 * or files. Invariant: the memory only saves time, an id sequence never depends on what was encoded before.
 */
import { invariant } from "../../base/index.ts";
import { type BpeDefinition, byteOf } from "./definition.ts";
import { MergeTable } from "./mergeTable.ts";
import { codePointAt, lengthFromFirstByte } from "./utf8.ts";
import { wordEnd } from "./words.ts";
import { WordTable } from "./wordTable.ts";

/** Longer words are rare and would push the others out. */
const longestRememberedBytes = 48;
/** When so many words are remembered all are forgotten: bounds the memory at some 3 MB, which measures faster than more. */
const mostRememberedWords = 1 << 15;
const none = -1;

export class WordEncoder {
  readonly #merges: MergeTable;
  /** The id of each one-character piece of the basic plane, or -1. */
  readonly #basicPlane = new Int32Array(0x10000).fill(none);
  readonly #aboveBasicPlane = new Map<number, number>();
  readonly #byteIds = new Int32Array(256).fill(none);
  readonly #words = new WordTable(mostRememberedWords);
  /** The ids of remembered word i: a single one itself, or `-1 - start` in `#rememberedIds` where their number stands first. */
  readonly #remembered = new Int32Array(mostRememberedWords + 1);
  #rememberedIds = new Int32Array(1 << 16);
  #numRememberedIds = 0;
  #ids = new Int32Array(1 << 12);
  #numIds = 0;

  constructor(definition: BpeDefinition) {
    this.#merges = new MergeTable(definition.merges);
    const special = new Set(definition.specialTokens);
    definition.pieces.forEach((piece, id) => {
      const byte = byteOf(piece);
      const codePoint = piece.codePointAt(0) ?? none;
      if (special.has(piece)) return;
      if (byte !== undefined) this.#byteIds[byte] = id;
      else if (piece.length !== String.fromCodePoint(codePoint).length) return;
      else if (codePoint < 0x10000) this.#basicPlane[codePoint] = id;
      else this.#aboveBasicPlane.set(codePoint, id);
    });
    invariant(!this.#byteIds.includes(none), "a byte-pair encoding without all byte pieces");
  }

  /** Starts a new sequence of ids. */
  begin(): void {
    this.#numIds = 0;
  }

  /** A copy of the ids since `begin`. */
  finish(): Int32Array {
    const ids = this.#ids.slice(0, this.#numIds);
    // One huge text must not hold its memory for ever.
    if (this.#ids.length > 1 << 22) this.#ids = new Int32Array(1 << 12);
    return ids;
  }

  appendId(id: number): void {
    this.#reserve(1);
    this.#ids[this.#numIds++] = id;
  }

  appendByte(byte: number): void {
    this.appendId(this.#byteIds[byte]);
  }

  /** Appends the ids of `bytes[start, end)`, which must be valid UTF-8. */
  append(bytes: Uint8Array, start: number, end: number): void {
    const words = this.#words;
    const remembered = this.#remembered;
    for (let position = start; position < end;) {
      const wordStart = position;
      position = wordEnd(bytes, wordStart, end);
      // No word has more ids than bytes.
      if (this.#numIds + position - wordStart > this.#ids.length) this.#reserve(position - wordStart);
      if (position - wordStart > longestRememberedBytes) {
        this.#numIds = this.#encodeWord(bytes, wordStart, position);
        continue;
      }
      const numKnown = words.size;
      const word = words.intern(bytes, wordStart, position);
      if (word === numKnown) {
        this.#remember(word, bytes, wordStart, position);
        continue;
      }
      const value = remembered[word];
      if (value >= 0) this.#ids[this.#numIds++] = value;
      else this.#appendRemembered(-1 - value);
    }
  }

  #appendRemembered(at: number): void {
    const source = this.#rememberedIds;
    const ids = this.#ids;
    let to = this.#numIds;
    for (let i = at + 1, end = at + 1 + source[at]; i < end; i++) ids[to++] = source[i];
    this.#numIds = to;
  }

  /** Encodes a new word and keeps its ids under its number. */
  #remember(word: number, bytes: Uint8Array, start: number, end: number): void {
    const from = this.#numIds;
    const to = this.#encodeWord(bytes, start, end);
    this.#numIds = to;
    if (to - from === 1) {
      this.#remembered[word] = this.#ids[from];
    } else {
      const at = this.#numRememberedIds;
      if (at + 1 + to - from > this.#rememberedIds.length) {
        const grown = new Int32Array(this.#rememberedIds.length * 2);
        grown.set(this.#rememberedIds);
        this.#rememberedIds = grown;
      }
      this.#rememberedIds[at] = to - from;
      for (let i = from; i < to; i++) this.#rememberedIds[at + 1 + i - from] = this.#ids[i];
      this.#numRememberedIds = at + 1 + to - from;
      this.#remembered[word] = -1 - at;
    }
    if (this.#words.size === mostRememberedWords - 1) {
      this.#words.clear();
      this.#numRememberedIds = 0;
    }
  }

  /** Writes the ids of one word after those there are; gives back where they end. */
  #encodeWord(bytes: Uint8Array, start: number, end: number): number {
    const ids = this.#ids;
    const from = this.#numIds;
    let to = from;
    for (let position = start; position < end;) {
      const length = lengthFromFirstByte(bytes[position]);
      const codePoint = codePointAt(bytes, position, length);
      const id =
        codePoint < 0x10000 ? this.#basicPlane[codePoint] : (this.#aboveBasicPlane.get(codePoint) ?? none);
      if (id === none) for (let i = 0; i < length; i++) ids[to++] = this.#byteIds[bytes[position + i]];
      else ids[to++] = id;
      position += length;
    }
    return this.#merges.apply(ids, from, to);
  }

  #reserve(more: number): void {
    if (this.#numIds + more <= this.#ids.length) return;
    const grown = new Int32Array(Math.max(this.#numIds + more, this.#ids.length * 2));
    grown.set(this.#ids);
    this.#ids = grown;
  }
}
