/**
 * Normalisation rules as SentencePiece stores them: a double-array trie from byte strings to places among replacements. It is
 * executed as it stands, so that a text becomes what the C++ library makes of it whatever Unicode version the rules were made from.
 * Knows nothing of spaces or pieces. Invariant: never reads outside the file's bytes.
 * Sources: S. Yata, Darts-clone (units of the double array); google/sentencepiece, normalizer (layout: trie size, trie, replacements
 * that each end in byte 0).
 */
import { TokenizerError } from "../../base/index.ts";

export class CharsMap {
  /** Bytes of the last match of `match`. */
  matchLength = 0;
  /** Where its replacement stands in `replacements`, up to a byte 0. */
  matchStart = 0;
  readonly replacements: Uint8Array;
  readonly #units: Uint32Array;

  /** Throws TokenizerError when `stored` cannot hold what it says. */
  constructor(stored: Uint8Array) {
    const view = new DataView(stored.buffer, stored.byteOffset, stored.byteLength);
    const numTrieBytes = stored.length > 4 ? view.getUint32(0, true) : 0;
    if (numTrieBytes === 0 || numTrieBytes % 4 !== 0 || numTrieBytes >= stored.length - 4)
      throw new TokenizerError(
        "tokenizer",
        `expected a trie inside the ${stored.length} bytes of precompiled_charsmap, got one of ${numTrieBytes} bytes`,
        { hint: "the SentencePiece model is damaged" },
      );
    this.#units = new Uint32Array(numTrieBytes / 4);
    for (let i = 0; i < this.#units.length; i++) this.#units[i] = view.getUint32(4 + i * 4, true);
    this.replacements = stored.subarray(4 + numTrieBytes);
  }

  /** Finds the longest rule that begins at `position`: true when there is one, then see `matchLength` and `matchStart`. */
  match(text: Uint8Array, position: number): boolean {
    const units = this.#units;
    this.matchLength = 0;
    let node = offsetOf(units[0]);
    for (let at = position; at < text.length; at++) {
      const byte = text[at];
      node ^= byte;
      // A label of a leaf has its highest bit set and so equals no byte.
      if (node >= units.length || (units[node] & 0x800000ff) >>> 0 !== byte) break;
      const unit = units[node];
      node ^= offsetOf(unit);
      const hasLeaf = ((unit >>> 8) & 1) === 1;
      if (hasLeaf && node < units.length) {
        this.matchLength = at + 1 - position;
        this.matchStart = units[node] & 0x7fffffff;
      }
    }
    return this.matchLength > 0;
  }
}

function offsetOf(unit: number): number {
  return (unit >>> 10) << ((unit & 0x200) >>> 6);
}
