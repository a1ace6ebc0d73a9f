/**
 * The tokenizer that Nautilus trains: byte-pair encoding over characters with byte fallback. Knows nothing of files.
 * Invariants: see `Tokenizer`; for equal definitions its ids are those of Hugging Face's `tokenizers`.
 */
import { isUtf8 } from "node:buffer";
import { TokenizerError } from "../../base/index.ts";
import { patternOf } from "../specialTokens.ts";
import { createStreamDecoder } from "../streamDecoder.ts";
import type { DecodeOptions, EncodeOptions, StreamDecoder, Tokenizer } from "../tokenizer.ts";
import { type BpeDefinition, byteOf, standardSpecialTokens } from "./definition.ts";
import { characterLength } from "./utf8.ts";
import { WordEncoder } from "./wordEncoder.ts";

const component = "tokenizer";
/** Texts up to this many UTF-16 units are turned into bytes without allocating. */
const scratchUnits = 1 << 18;
const utf8 = new TextEncoder();

export class BpeTokenizer implements Tokenizer {
  readonly definition: BpeDefinition;
  readonly vocabSize: number;
  readonly bosId: number | undefined;
  readonly eosId: number;
  readonly padId: number | undefined;
  readonly unkId: number | undefined;
  readonly specialTokens: ReadonlyMap<string, number>;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #isSpecial: Uint8Array;
  /** All pieces' bytes one after the other, and where each starts. */
  readonly #pieceBytes: Uint8Array;
  readonly #pieceOffsets: Int32Array;
  readonly #specialPattern: RegExp;
  readonly #encoder: WordEncoder;
  readonly #scratch = new Uint8Array(scratchUnits * 3);

  /** `definition` must be consistent (see BpeDefinition). Throws TokenizerError when it has no end-of-document token. */
  constructor(definition: BpeDefinition) {
    const { pieces, specialTokens } = definition;
    this.definition = definition;
    this.vocabSize = pieces.length;
    const ids = new Map(pieces.map((piece, id) => [piece, id]));
    this.#ids = ids;
    this.specialTokens = new Map(specialTokens.map((token) => [token, this.#requireId(token)]));
    const { bos, eos, pad, unk } = standardSpecialTokens;
    this.bosId = this.specialTokens.get(bos);
    this.padId = this.specialTokens.get(pad);
    this.unkId = this.specialTokens.get(unk);
    const eosId = this.specialTokens.get(eos);
    if (eosId === undefined) {
      throw new TokenizerError(
        component,
        `expected a special token '${eos}' for the end of a document, got none`,
      );
    }
    this.eosId = eosId;
    this.#isSpecial = new Uint8Array(pieces.length);
    for (const id of this.specialTokens.values()) this.#isSpecial[id] = 1;
    this.#specialPattern = patternOf(specialTokens);
    [this.#pieceBytes, this.#pieceOffsets] = layOutPieces(pieces);
    this.#encoder = new WordEncoder(definition);
  }

  encode(text: string, options: EncodeOptions = {}): Int32Array {
    const encoder = this.#encoder;
    encoder.begin();
    if (options.specialTokens !== "parse") {
      this.#append(text);
      return encoder.finish();
    }
    let done = 0;
    for (const match of text.matchAll(this.#specialPattern)) {
      this.#append(text.slice(done, match.index));
      encoder.appendId(this.#requireId(match[0]));
      done = match.index + match[0].length;
    }
    this.#append(text.slice(done));
    return encoder.finish();
  }

  encodeBytes(bytes: Uint8Array): Int32Array {
    const encoder = this.#encoder;
    encoder.begin();
    if (isUtf8(bytes)) {
      encoder.append(bytes, 0, bytes.length);
      return encoder.finish();
    }
    let start = 0;
    for (let position = 0; position < bytes.length;) {
      const length = characterLength(bytes, position);
      if (length > 0) {
        position += length;
        continue;
      }
      encoder.append(bytes, start, position);
      encoder.appendByte(bytes[position]);
      start = ++position;
    }
    encoder.append(bytes, start, bytes.length);
    return encoder.finish();
  }

  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    const { buffer, byteOffset, byteLength } = this.decodeBytes(ids, options);
    return Buffer.from(buffer, byteOffset, byteLength).toString("utf8");
  }

  decodeBytes(ids: Iterable<number>, options: DecodeOptions = {}): Uint8Array<ArrayBuffer> {
    const list = Array.isArray(ids) || ids instanceof Int32Array ? ids : [...ids];
    const offsets = this.#pieceOffsets;
    const showSpecial = options.specialTokens === "show";
    const isShown = (id: number): boolean => showSpecial || this.#isSpecial[id] === 0;
    let numBytes = 0;
    for (const id of list) {
      this.#requirePiece(id);
      if (isShown(id)) numBytes += offsets[id + 1] - offsets[id];
    }
    const bytes = new Uint8Array(numBytes);
    let to = 0;
    for (const id of list) {
      if (isShown(id))
        for (let from = offsets[id]; from < offsets[id + 1];) bytes[to++] = this.#pieceBytes[from++];
    }
    return bytes;
  }

  createDecoder(options: DecodeOptions = {}): StreamDecoder {
    return createStreamDecoder(this, options);
  }

  idOf(piece: string): number | undefined {
    return this.#ids.get(piece);
  }

  pieceOf(id: number): string {
    return this.#requirePiece(id);
  }

  #append(text: string): void {
    if (text.length <= scratchUnits) {
      this.#encoder.append(this.#scratch, 0, utf8.encodeInto(text, this.#scratch).written);
    } else {
      const bytes = utf8.encode(text);
      this.#encoder.append(bytes, 0, bytes.length);
    }
  }

  #requireId(piece: string): number {
    const id = this.#ids.get(piece);
    if (id === undefined) {
      throw new TokenizerError(
        component,
        `expected every special token among the pieces, got '${piece}' outside`,
      );
    }
    return id;
  }

  #requirePiece(id: number): string {
    const piece = this.definition.pieces[id];
    if (piece === undefined) {
      throw new TokenizerError(component, `expected ids of 0 … ${this.vocabSize - 1}, got ${id}`, {
        hint: "are these ids of another tokenizer?",
        fields: { id },
      });
    }
    return piece;
  }
}

function layOutPieces(pieces: readonly string[]): [bytes: Uint8Array, offsets: Int32Array] {
  const encoded = pieces.map((piece) => {
    const byte = byteOf(piece);
    return byte === undefined ? utf8.encode(piece) : Uint8Array.of(byte);
  });
  const offsets = new Int32Array(pieces.length + 1);
  encoded.forEach((bytes, id) => (offsets[id + 1] = offsets[id] + bytes.length));
  const all = new Uint8Array(offsets[pieces.length]);
  encoded.forEach((bytes, id) => all.set(bytes, offsets[id]));
  return [all, offsets];
}
