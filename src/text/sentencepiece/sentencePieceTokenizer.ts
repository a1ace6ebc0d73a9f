/**
 * A tokenizer of a SentencePiece model. Knows nothing of files. Invariants: for equal models ids and decoded texts are those of the
 * C++ library, nothing added at the beginning or end; decoding what was encoded gives the normalised text, which is the text itself
 * for models that normalise nothing and fall back on bytes.
 */
import { TokenizerError } from "../../base/index.ts";
import { byteOf } from "../bpe/definition.ts";
import { patternOf } from "../specialTokens.ts";
import type { DecodeOptions, EncodeOptions, StreamDecoder, Tokenizer } from "../tokenizer.ts";
import { CharacterEncoder, WholeWordEncoder } from "./characterEncoders.ts";
import { IdList } from "./idList.ts";
import { MergeEncoder } from "./mergeEncoder.ts";
import { type SentencePieceModel, isReserved, modelType, pieceType } from "./modelFile.ts";
import { Normalizer } from "./normalizer.ts";
import { PieceDecoder, PieceTexts } from "./pieceDecoder.ts";
import { type PieceEncoder, PieceIndex } from "./pieceIndex.ts";
import { UnigramEncoder } from "./unigramEncoder.ts";

const component = "tokenizer";
const utf8 = new TextEncoder();

export class SentencePieceTokenizer implements Tokenizer {
  readonly model: SentencePieceModel;
  readonly vocabSize: number;
  readonly bosId: number | undefined;
  readonly eosId: number;
  readonly padId: number | undefined;
  readonly unkId: number;
  /** The control pieces and the unknown one. User-defined pieces are found in any text and so are none. */
  readonly specialTokens: ReadonlyMap<string, number>;
  readonly #index: PieceIndex;
  readonly #normalizer: Normalizer;
  readonly #encoder: PieceEncoder;
  readonly #out: IdList;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #byteOfId: ReadonlyMap<number, number>;
  readonly #specialPattern: RegExp;

  /** Throws TokenizerError when the model has no end-of-document piece or its rules are damaged. */
  constructor(model: SentencePieceModel) {
    this.model = model;
    this.vocabSize = model.pieces.length;
    const { types, pieces } = model;
    const isSpecial = (id: number): boolean =>
      types[id] === pieceType.control || types[id] === pieceType.unknown;
    this.specialTokens = new Map(
      pieces.map((piece, id) => [piece, id] as const).filter(([, id]) => isSpecial(id)),
    );
    const controlId = (piece: string): number | undefined => {
      const id = this.specialTokens.get(piece);
      return id === undefined || types[id] !== pieceType.control ? undefined : id;
    };
    this.bosId = controlId(model.bosPiece);
    this.padId = controlId(model.padPiece);
    this.unkId = model.unkId;
    const eosId = controlId(model.eosPiece);
    if (eosId === undefined) {
      throw new TokenizerError(
        component,
        `expected a control piece '${model.eosPiece}' for the end of a document, got none`,
        { hint: "train the SentencePiece model with eos_id" },
      );
    }
    this.eosId = eosId;
    this.#index = new PieceIndex(model);
    this.#normalizer = new Normalizer(model.normalizer, this.#index.userDefined);
    this.#encoder = encoderOf(this.#index);
    this.#out = new IdList(model.unkId);
    // Reserved pieces last: they are found before others of the same text.
    const bothKinds = [...pieces.entries()].sort(
      ([a], [b]) => Number(isReserved(types[a])) - Number(isReserved(types[b])),
    );
    this.#ids = new Map(bothKinds.map(([id, piece]) => [piece, id]));
    this.#byteOfId = new Map(
      [...pieces.entries()].flatMap(([id, piece]) =>
        types[id] === pieceType.byte ? [[id, byteOf(piece) ?? 0]] : [],
      ),
    );
    this.#specialPattern = patternOf([...this.specialTokens.keys()]);
  }

  encode(text: string, options: EncodeOptions = {}): Int32Array {
    if (options.specialTokens !== "parse") return this.encodeBytes(utf8.encode(text));
    this.#out.clear();
    let done = 0;
    const append = (part: string): void => {
      if (part !== "")
        this.#encoder.encode(this.#normalizer.normalize(utf8.encode(part), done === 0), this.#out);
    };
    for (const match of text.matchAll(this.#specialPattern)) {
      append(text.slice(done, match.index));
      this.#out.push(this.specialTokens.get(match[0]) ?? this.unkId);
      done = match.index + match[0].length;
    }
    append(text.slice(done));
    return this.#out.toArray();
  }

  encodeBytes(bytes: Uint8Array): Int32Array {
    this.#out.clear();
    this.#encoder.encode(this.#normalizer.normalize(bytes), this.#out);
    return this.#out.toArray();
  }

  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    const decoder = this.createDecoder(options);
    return decoder.push(ids) + decoder.flush();
  }

  decodeBytes(ids: Iterable<number>, options: DecodeOptions = {}): Uint8Array {
    const texts = new PieceTexts(this.model, options);
    const parts: Uint8Array[] = [];
    for (const id of ids) {
      this.#requirePiece(id);
      const byte = this.#byteOfId.get(id);
      if (byte === undefined) {
        parts.push(utf8.encode(texts.next(id)));
      } else {
        texts.begin();
        parts.push(Uint8Array.of(byte));
      }
    }
    return new Uint8Array(Buffer.concat(parts));
  }

  createDecoder(options: DecodeOptions = {}): StreamDecoder {
    const decoder = new PieceDecoder(this.model, { byteOfId: this.#byteOfId, options });
    return {
      push: (ids) => {
        const list = typeof ids === "number" ? [ids] : [...ids];
        for (const id of list) this.#requirePiece(id);
        return decoder.push(list);
      },
      flush: () => decoder.flush(),
    };
  }

  idOf(piece: string): number | undefined {
    return this.#ids.get(piece);
  }

  pieceOf(id: number): string {
    return this.#requirePiece(id);
  }

  #requirePiece(id: number): string {
    const piece = this.model.pieces[id];
    if (piece === undefined) {
      throw new TokenizerError(component, `expected ids of 0 … ${this.vocabSize - 1}, got ${id}`, {
        hint: "are these ids of another tokenizer?",
        fields: { id },
      });
    }
    return piece;
  }
}

function encoderOf(index: PieceIndex): PieceEncoder {
  switch (index.model.type) {
    case modelType.unigram:
      return new UnigramEncoder(index);
    case modelType.word:
      return new WholeWordEncoder(index);
    case modelType.char:
      return new CharacterEncoder(index);
    default:
      return new MergeEncoder(index);
  }
}
