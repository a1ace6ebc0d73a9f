/**
 * What SentencePiece does to a text before it is cut into pieces: the stored rules, spaces at the ends and in runs, the space put
 * before a text, and "▁" for spaces. Knows nothing of pieces but the user-defined ones, which no rule may touch.
 * Invariant: the bytes are those of the C++ library for any bytes, UTF-8 or not. Source: google/sentencepiece, normalizer.
 */
import { characterLength } from "../bpe/utf8.ts";
import { CharsMap } from "./charsMap.ts";
import type { NormalizerSpec } from "./modelFile.ts";
import type { PieceTrie } from "./pieceTrie.ts";

const space = 0x20;
const noBytes = new Uint8Array();
/** U+2581, which stands for a space. */
export const metaspace = Uint8Array.of(0xe2, 0x96, 0x81);
/** U+FFFD, which stands for a byte that is no part of a character. */
const replacement = Uint8Array.of(0xef, 0xbf, 0xbd);

export class Normalizer {
  readonly #spec: NormalizerSpec;
  readonly #charsMap: CharsMap | undefined;
  readonly #userDefined: PieceTrie | undefined;
  #output = new Uint8Array(1 << 12);
  #length = 0;
  /** What `#read` found: `#source[#from, #to)` in place of `#consumed` bytes. */
  #source: Uint8Array = noBytes;
  #from = 0;
  #to = 0;
  #consumed = 0;

  /** `userDefined` holds the pieces that are left as they are, if there are any. Throws TokenizerError for damaged rules. */
  constructor(spec: NormalizerSpec, userDefined: PieceTrie | undefined) {
    this.#spec = spec;
    this.#charsMap = spec.charsMap.length === 0 ? undefined : new CharsMap(spec.charsMap);
    this.#userDefined = userDefined;
  }

  /**
   * The normalised bytes, valid until the next call. `isStart` is false for text in the middle of a text, behind a special token:
   * nothing is then put before it.
   */
  normalize(text: Uint8Array, isStart = true): Uint8Array {
    const { removeExtraWhitespaces, treatWhitespaceAsSuffix, addDummyPrefix } = this.#spec;
    this.#length = 0;
    let position = 0;
    if (removeExtraWhitespaces) {
      for (; position < text.length; position += this.#consumed) {
        this.#read(text, position);
        if (this.#to - this.#from !== 1 || this.#source[this.#from] !== space) break;
      }
    }
    if (position === text.length) return noBytes;
    if (addDummyPrefix && isStart && !treatWhitespaceAsSuffix) this.#appendSpace();
    let isAfterSpace = removeExtraWhitespaces;
    for (; position < text.length; position += this.#consumed) {
      this.#read(text, position);
      const source = this.#source;
      if (isAfterSpace) while (this.#from < this.#to && source[this.#from] === space) this.#from++;
      if (this.#from === this.#to) continue;
      this.#appendRead();
      isAfterSpace = removeExtraWhitespaces && source[this.#to - 1] === space;
    }
    if (removeExtraWhitespaces) this.#dropTrailingSpaces();
    if (addDummyPrefix && isStart && treatWhitespaceAsSuffix) this.#appendSpace();
    return this.#output.subarray(0, this.#length);
  }

  /** Finds what stands for the next bytes of `text`: a user-defined piece, a rule's replacement, or one character. */
  #read(text: Uint8Array, position: number): void {
    const charsMap = this.#charsMap;
    const kept = this.#userDefined?.longestMatch(text, position, text.length) ?? 0;
    if (kept === 0 && charsMap?.match(text, position) === true) {
      this.#source = charsMap.replacements;
      this.#from = charsMap.matchStart;
      const end = this.#source.indexOf(0, this.#from);
      this.#to = end < 0 ? this.#source.length : end;
      this.#from = Math.min(this.#from, this.#to);
      this.#consumed = charsMap.matchLength;
      return;
    }
    const length = kept > 0 ? kept : characterLength(text, position);
    this.#consumed = Math.max(length, 1);
    this.#source = length === 0 ? replacement : text;
    this.#from = length === 0 ? 0 : position;
    this.#to = this.#from + (length === 0 ? replacement.length : length);
  }

  #appendRead(): void {
    const source = this.#source;
    this.#reserve((this.#to - this.#from) * 3);
    for (let at = this.#from; at < this.#to; at++) {
      if (source[at] === space) this.#appendSpace();
      else this.#output[this.#length++] = source[at];
    }
  }

  #appendSpace(): void {
    this.#reserve(metaspace.length);
    if (this.#spec.escapeWhitespaces) for (const byte of metaspace) this.#output[this.#length++] = byte;
    else this.#output[this.#length++] = space;
  }

  #dropTrailingSpaces(): void {
    const output = this.#output;
    if (!this.#spec.escapeWhitespaces) {
      while (this.#length > 0 && output[this.#length - 1] === space) this.#length--;
    } else {
      while (isMetaspace(output, this.#length - metaspace.length)) this.#length -= metaspace.length;
    }
  }

  #reserve(numBytes: number): void {
    if (this.#length + numBytes <= this.#output.length) return;
    const output = new Uint8Array((this.#length + numBytes) * 2);
    output.set(this.#output);
    this.#output = output;
  }
}

/** Whether "▁" stands at `position`, which may be negative. */
export function isMetaspace(bytes: Uint8Array, position: number): boolean {
  return (
    bytes[position] === metaspace[0] &&
    bytes[position + 1] === metaspace[1] &&
    bytes[position + 2] === metaspace[2]
  );
}
