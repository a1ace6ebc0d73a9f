/**
 * A SentencePiece `.model` file: the pieces and the settings that decide how a text becomes ids. Knows nothing of encoding.
 * Invariants of what `parseModel` gives: pieces are not empty, there is one unknown piece, all 256 bytes have one when bytes are
 * fallen back on, and no two pieces of a kind (see `isReserved`) have the same text; anything else is refused.
 * Source: sentencepiece_model.proto of google/sentencepiece (field numbers and defaults).
 */
import { TokenizerError } from "../../base/index.ts";
import { byteOf } from "../bpe/definition.ts";
import { floatOfBits, readFields } from "./protobuf.ts";

const component = "tokenizer";

/** The kinds of pieces, by the file's numbers. */
export const pieceType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;
/** The kinds of models, by the file's numbers. */
export const modelType = { unigram: 1, bpe: 2, word: 3, char: 4 } as const;

export interface NormalizerSpec {
  /** The rules as a stored trie and its replacements (see CharsMap); empty: none. */
  charsMap: Uint8Array;
  addDummyPrefix: boolean;
  removeExtraWhitespaces: boolean;
  escapeWhitespaces: boolean;
  /** The space that stands for the beginning of a text goes to its end. */
  treatWhitespaceAsSuffix: boolean;
}

export interface SentencePieceModel {
  /** One of `modelType`. */
  type: number;
  /** The text of each piece by its id, and its bytes. */
  pieces: readonly string[];
  pieceBytes: readonly Uint8Array[];
  /** Of each piece: its score, and one of `pieceType`. */
  scores: Float32Array;
  types: Uint8Array;
  hasByteFallback: boolean;
  /** The ids of the pieces of bytes 0 … 255, when bytes are fallen back on. */
  byteIds: Int32Array;
  unkId: number;
  /** What an unknown piece is decoded to. */
  unkSurface: string;
  bosPiece: string;
  eosPiece: string;
  padPiece: string;
  normalizer: NormalizerSpec;
}

/** Whether pieces of this type are never found in a text by their own text. */
export function isReserved(type: number): boolean {
  return type === pieceType.unknown || type === pieceType.control || type === pieceType.byte;
}

/** The model in the content of a file; `path` is for messages. Throws TokenizerError when it is damaged or not supported. */
export function parseModel(content: Uint8Array, path: string): SentencePieceModel {
  const pieces = new PieceList(path);
  const trainer = new TrainerSpec(path);
  const normalizer: NormalizerSpec = {
    charsMap: new Uint8Array(),
    addDummyPrefix: true,
    removeExtraWhitespaces: true,
    escapeWhitespaces: true,
    treatWhitespaceAsSuffix: false,
  };
  const isMessage = readFields(content, ({ number, bytes }) => {
    if (bytes === undefined) return;
    if (number === 1) pieces.read(bytes);
    else if (number === 2) trainer.read(bytes);
    else if (number === 3) readNormalizer(bytes, normalizer, path);
    else if (number === 5) refuseDenormalizer(bytes, path);
  });
  if (!isMessage) throw broken(path, "a SentencePiece model, got bytes that are no such message");
  if (pieces.texts.length === 0) throw broken(path, "a SentencePiece model, got no pieces");
  if (!Object.values(modelType).some((type) => type === trainer.type))
    throw broken(
      path,
      `a unigram, BPE, word or character model (trainer_spec.model_type 1 to 4), got ${trainer.type}`,
    );
  normalizer.treatWhitespaceAsSuffix = trainer.treatWhitespaceAsSuffix;
  const types = Uint8Array.from(pieces.types);
  const { unkId, byteIds } = checkPieces(pieces.texts, types, {
    path,
    hasByteFallback: trainer.byteFallback,
  });
  return {
    type: trainer.type,
    pieces: pieces.texts,
    pieceBytes: pieces.bytes,
    scores: Float32Array.from(pieces.scores),
    types,
    hasByteFallback: trainer.byteFallback,
    byteIds,
    unkId,
    unkSurface: trainer.unkSurface,
    bosPiece: trainer.bosPiece,
    eosPiece: trainer.eosPiece,
    padPiece: trainer.padPiece,
    normalizer,
  };
}

class PieceList {
  readonly texts: string[] = [];
  readonly bytes: Uint8Array[] = [];
  readonly scores: number[] = [];
  readonly types: number[] = [];
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  read(message: Uint8Array): void {
    let text: Uint8Array = new Uint8Array();
    let score = 0;
    let type: number = pieceType.normal;
    const isMessage = readFields(message, ({ number, value, bytes }) => {
      if (number === 1 && bytes !== undefined) text = bytes;
      else if (number === 2) score = floatOfBits(value);
      else if (number === 3) type = value;
    });
    const id = this.texts.length;
    if (!isMessage) throw broken(this.#path, `a piece with id ${id}, got bytes that are no such message`);
    if (text.length === 0) throw broken(this.#path, `a text for piece ${id}, got none`);
    if (type < 1 || type > 6) throw broken(this.#path, `a type from 1 to 6 for piece ${id}, got ${type}`);
    this.texts.push(textOf(text));
    this.bytes.push(text);
    this.scores.push(score);
    this.types.push(type);
  }
}

class TrainerSpec {
  type: number = modelType.unigram;
  byteFallback = false;
  treatWhitespaceAsSuffix = false;
  unkSurface = " \u2047 ";
  bosPiece = "<s>";
  eosPiece = "</s>";
  padPiece = "<pad>";
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  read(message: Uint8Array): void {
    const isMessage = readFields(message, ({ number, value, bytes }) => {
      const text = bytes === undefined ? "" : textOf(bytes);
      if (number === 3) this.type = value;
      else if (number === 24) this.treatWhitespaceAsSuffix = value !== 0;
      else if (number === 35) this.byteFallback = value !== 0;
      else if (number === 44) this.unkSurface = text;
      // An empty name means the default one.
      else if (number === 46 && text !== "") this.bosPiece = text;
      else if (number === 47 && text !== "") this.eosPiece = text;
      else if (number === 48 && text !== "") this.padPiece = text;
    });
    if (!isMessage) throw broken(this.#path, "a trainer_spec, got bytes that are no such message");
  }
}

function readNormalizer(message: Uint8Array, spec: NormalizerSpec, path: string): void {
  const isMessage = readFields(message, ({ number, value, bytes }) => {
    if (number === 2 && bytes !== undefined) spec.charsMap = Uint8Array.from(bytes);
    else if (number === 3) spec.addDummyPrefix = value !== 0;
    else if (number === 4) spec.removeExtraWhitespaces = value !== 0;
    else if (number === 5) spec.escapeWhitespaces = value !== 0;
  });
  if (!isMessage) throw broken(path, "a normalizer_spec, got bytes that are no such message");
}

function refuseDenormalizer(message: Uint8Array, path: string): void {
  readFields(message, ({ number, bytes }) => {
    if (number === 2 && bytes !== undefined && bytes.length > 0)
      throw new TokenizerError(component, `${path}: expected a model without denormaliser, got rules in it`, {
        hint: "such models are not supported",
        fields: { path },
      });
  });
}

function checkPieces(
  texts: readonly string[],
  types: Uint8Array,
  { path, hasByteFallback }: { path: string; hasByteFallback: boolean },
): { unkId: number; byteIds: Int32Array } {
  const seen = [new Set<string>(), new Set<string>()];
  const byteIds = new Int32Array(256).fill(-1);
  let unkId = -1;
  texts.forEach((text, id) => {
    const name = JSON.stringify(text);
    const kind = seen[isReserved(types[id]) ? 1 : 0];
    if (kind.has(text)) throw broken(path, `every piece once, got ${name} again with id ${id}`);
    kind.add(text);
    if (types[id] === pieceType.unknown) {
      if (unkId >= 0) throw broken(path, `one unknown piece, got ids ${unkId} and ${id}`);
      unkId = id;
    } else if (types[id] === pieceType.byte) {
      const byte = byteOf(text);
      if (byte === undefined) throw broken(path, `a byte piece such as "<0x0A>" with id ${id}, got ${name}`);
      if (!hasByteFallback)
        throw broken(path, `byte pieces only with trainer_spec.byte_fallback, got ${name}`);
      byteIds[byte] = id;
    }
  });
  if (unkId < 0) throw broken(path, "an unknown piece, got none");
  const missing = byteIds.indexOf(-1);
  if (hasByteFallback && missing >= 0) throw broken(path, `a piece for every byte, got none for ${missing}`);
  return { unkId, byteIds };
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
}

function broken(path: string, expected: string): TokenizerError {
  return new TokenizerError(component, `${path}: expected ${expected}`, {
    hint: "the file is damaged or is not a SentencePiece model",
    fields: { path },
  });
}
