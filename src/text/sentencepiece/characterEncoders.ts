/** The two simplest SentencePiece models: a piece for each character, and a piece for each word. Source: google/sentencepiece. */
import { lengthFromFirstByte } from "../bpe/utf8.ts";
import type { IdList } from "./idList.ts";
import { isMetaspace } from "./normalizer.ts";
import type { PieceEncoder, PieceIndex } from "./pieceIndex.ts";

/** User-defined pieces count as one character. */
export class CharacterEncoder implements PieceEncoder {
  readonly #index: PieceIndex;

  constructor(index: PieceIndex) {
    this.#index = index;
  }

  encode(text: Uint8Array, out: IdList): void {
    for (let start = 0; start < text.length;) {
      const kept = this.#index.userDefined?.longestMatch(text, start, text.length) ?? 0;
      const end = start + (kept > 0 ? kept : Math.min(lengthFromFirstByte(text[start]), text.length - start));
      this.#index.emit(this.#index.idOf(text, start, end), text, { start, end, out });
      start = end;
    }
  }
}

/** A word begins at every "▁". */
export class WholeWordEncoder implements PieceEncoder {
  readonly #index: PieceIndex;

  constructor(index: PieceIndex) {
    this.#index = index;
  }

  encode(text: Uint8Array, out: IdList): void {
    for (let start = 0; start < text.length;) {
      let end = start + 1;
      while (end < text.length && !isMetaspace(text, end)) end++;
      this.#index.emit(this.#index.idOf(text, start, end), text, { start, end, out });
      start = end;
    }
  }
}
