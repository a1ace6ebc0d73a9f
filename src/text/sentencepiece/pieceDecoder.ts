/**
 * Text out of SentencePiece ids, as the C++ library gives it: "▁" are spaces, the space put before a text is taken away again, bytes
 * that make no character become U+FFFD one by one. Knows nothing of encoding.
 * Invariant: what `push` gives is whole characters, and all of it together does not depend on how the ids were split.
 */
import { characterLength } from "../bpe/utf8.ts";
import type { DecodeOptions, StreamDecoder } from "../tokenizer.ts";
import { type SentencePieceModel, pieceType } from "./modelFile.ts";

const metaspace = "\u2581";
const noBytes = new Uint8Array();

/** The text of single pieces, where it depends on what stood before: at the beginning of a text spaces are dropped. */
export class PieceTexts {
  readonly #model: SentencePieceModel;
  readonly #showsSpecial: boolean;
  readonly #startsText: boolean;
  #isAtStart = true;

  constructor(model: SentencePieceModel, options: DecodeOptions) {
    this.#model = model;
    this.#showsSpecial = options.specialTokens === "show";
    const { addDummyPrefix, removeExtraWhitespaces } = model.normalizer;
    this.#startsText = options.startsText !== false && (addDummyPrefix || removeExtraWhitespaces);
    this.restart();
  }

  restart(): void {
    this.#isAtStart = this.#startsText;
  }

  /** Bytes were given out: the text has begun. */
  begin(): void {
    this.#isAtStart = false;
  }

  /** The text of the piece `id`, which is not a byte's. */
  next(id: number): string {
    const { types, pieces, unkSurface, normalizer } = this.#model;
    const type = types[id];
    let text = pieces[id];
    if (type === pieceType.control) text = this.#showsSpecial ? text : "";
    else if (type === pieceType.unknown) text = this.#showsSpecial ? text : unkSurface;
    else {
      const isDropped = this.#isAtStart && text.startsWith(metaspace);
      text = (isDropped ? text.slice(1) : text).replaceAll(metaspace, " ");
      // Only one space was put before the text; where runs of them are removed, none can stand there.
      if (isDropped && !normalizer.removeExtraWhitespaces) this.#isAtStart = false;
    }
    if (text !== "") this.#isAtStart = false;
    return text;
  }
}

export class PieceDecoder implements StreamDecoder {
  readonly #byteOfId: ReadonlyMap<number, number>;
  readonly #texts: PieceTexts;
  /** Bytes of a character that is not finished: fewer than four. */
  #pending: Uint8Array = noBytes;

  constructor(
    model: SentencePieceModel,
    { byteOfId, options }: { byteOfId: ReadonlyMap<number, number>; options: DecodeOptions },
  ) {
    this.#byteOfId = byteOfId;
    this.#texts = new PieceTexts(model, options);
  }

  push(ids: number | Iterable<number>): string {
    let text = "";
    for (const id of typeof ids === "number" ? [ids] : ids) {
      const byte = this.#byteOfId.get(id);
      if (byte === undefined) text += this.#flushBytes() + this.#texts.next(id);
      else text += this.#pushByte(byte);
    }
    return text;
  }

  flush(): string {
    const text = this.#flushBytes();
    this.#texts.restart();
    return text;
  }

  #pushByte(byte: number): string {
    const bytes = Uint8Array.of(...this.#pending, byte);
    let position = 0;
    let text = "";
    while (position < bytes.length) {
      const length = characterLength(bytes, position);
      if (length === 0 && couldBegin(bytes.subarray(position))) break;
      text +=
        length === 0 ? "\ufffd" : Buffer.from(bytes.subarray(position, position + length)).toString("utf8");
      position += Math.max(length, 1);
    }
    this.#pending = bytes.subarray(position);
    if (text !== "") this.#texts.begin();
    return text;
  }

  #flushBytes(): string {
    if (this.#pending.length === 0) return "";
    const text = "\ufffd".repeat(this.#pending.length);
    this.#pending = noBytes;
    this.#texts.begin();
    return text;
  }
}

/** Whether these bytes, with others behind them, could be a character: the second byte's range depends on the first's. */
function couldBegin(bytes: Uint8Array): boolean {
  return [0x80, 0xbf].some((filler) => {
    const filled = new Uint8Array(4).fill(filler);
    filled.set(bytes);
    return characterLength(filled, 0) > bytes.length;
  });
}
