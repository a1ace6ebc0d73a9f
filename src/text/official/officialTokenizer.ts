/**
 * A tokenizer of any tokenizer.json that Hugging Face's JavaScript library knows, behind our interface. Knows nothing of files.
 * Invariants: ids are those of the Rust library without its template (no beginning or end mark is added); special tokens in a text
 * are text unless asked for, which the library cannot do by itself, so that it gets a second tokenizer without them.
 * Bytes that are not UTF-8 count as U+FFFD.
 */
import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import { TokenizerError, messageOf } from "../../base/index.ts";
import { createStreamDecoder } from "../streamDecoder.ts";
import type { DecodeOptions, EncodeOptions, StreamDecoder, Tokenizer } from "../tokenizer.ts";
import type { TokenizerConfig } from "../tokenizerConfig.ts";
import { type OfficialFile, officialFileOf, separatesIdeographs } from "./officialFile.ts";
import { type PieceDecoding, pieceDecodingOf } from "./pieceBytes.ts";

const component = "tokenizer";
const utf8 = new TextEncoder();
/** Ideographs of two UTF-16 units, at which the JavaScript library does not cut; the blocks are the Rust library's. */
const rareIdeographs = /[\u{20000}-\u{2a6df}\u{2a700}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;
/** Names of the end of a document where tokenizer_config.json gives none. */
const usualEnds = ["</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "[SEP]"];

/** What is used of the library, whose own declarations do not resolve under Node's module rules. */
interface Library {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  decode(ids: number[], options: { clean_up_tokenization_spaces: boolean }): string;
  token_to_id(piece: string): number | undefined;
  /** Pieces by id; ids may be left out. */
  model: { vocab: string[] } | null;
}

export class OfficialTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly bosId: number | undefined;
  readonly eosId: number;
  readonly padId: number | undefined;
  readonly unkId: number | undefined;
  readonly specialTokens: ReadonlyMap<string, number>;
  readonly #file: OfficialFile;
  readonly #path: string;
  readonly #parsing: Library;
  #reading: Library | undefined;
  readonly #decoding: PieceDecoding | undefined;
  readonly #separatesIdeographs: boolean;
  readonly #pieces: readonly string[];
  readonly #addedIds: ReadonlySet<number>;
  readonly #specialIds: ReadonlySet<number>;

  /** `path` is for messages. Throws TokenizerError when a part is damaged or not supported, or no token ends a document. */
  constructor(content: unknown, { config, path }: { config: TokenizerConfig; path: string }) {
    const file = officialFileOf(content, path);
    this.#file = file;
    this.#path = path;
    this.#parsing = libraryTokenizer(file, path);
    this.#pieces = this.#parsing.model?.vocab ?? [];
    this.vocabSize = this.#pieces.length;
    this.#decoding = pieceDecodingOf(file.decoder);
    this.#separatesIdeographs = separatesIdeographs(file);
    this.#addedIds = new Set(file.added_tokens.map(({ id }) => id));
    this.specialTokens = new Map(
      file.added_tokens.filter(({ special }) => special).map((token) => [token.content, token.id]),
    );
    this.#specialIds = new Set(this.specialTokens.values());
    const idOf = (name: string | undefined): number | undefined =>
      name === undefined ? undefined : this.idOf(name);
    this.bosId = idOf(config.bosToken);
    this.padId = idOf(config.padToken);
    this.unkId = idOf(config.unkToken);
    const eosId =
      idOf(config.eosToken) ??
      idOf(config.sepToken) ??
      idOf(usualEnds.find((name) => this.specialTokens.has(name)));
    if (eosId === undefined) {
      throw new TokenizerError(component, `expected in ${path} a token that ends a document, got none`, {
        hint: "give eos_token in tokenizer_config.json beside it",
        fields: { path },
      });
    }
    this.eosId = eosId;
  }

  encode(text: string, options: EncodeOptions = {}): Int32Array {
    if (options.specialTokens !== "parse")
      this.#reading ??= libraryTokenizer(withoutSpecial(this.#file), this.#path);
    const library = options.specialTokens === "parse" ? this.#parsing : (this.#reading ?? this.#parsing);
    const wellFormed = text.toWellFormed();
    const prepared = this.#separatesIdeographs ? wellFormed.replace(rareIdeographs, " $& ") : wellFormed;
    return Int32Array.from(library.encode(prepared, { add_special_tokens: false }).ids);
  }

  encodeBytes(bytes: Uint8Array): Int32Array {
    return this.encode(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8"));
  }

  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    if (this.#decoding === undefined) return this.#decodeByLibrary(ids, options);
    return Buffer.from(this.decodeBytes(ids, options)).toString("utf8");
  }

  decodeBytes(ids: Iterable<number>, options: DecodeOptions = {}): Uint8Array {
    if (this.#decoding === undefined) return utf8.encode(this.#decodeByLibrary(ids, options));
    const decoder = new ByteDecoder(this.#decoding, options);
    const parts = this.#shown(ids, options).map((id) =>
      decoder.next(this.#pieces[id], this.#addedIds.has(id)),
    );
    return new Uint8Array(Buffer.concat(parts));
  }

  createDecoder(options: DecodeOptions = {}): StreamDecoder {
    const decoding = this.#decoding;
    if (decoding === undefined) return windowedDecoder((ids) => this.#decodeByLibrary(ids, options));
    let decoder = new ByteDecoder(decoding, options);
    const decodeBytes = (ids: Iterable<number>): Uint8Array =>
      new Uint8Array(
        Buffer.concat(
          this.#shown(ids, options).map((id) => decoder.next(this.#pieces[id], this.#addedIds.has(id))),
        ),
      );
    const stream = createStreamDecoder({ decodeBytes });
    return {
      push: (ids) => stream.push(ids),
      flush: () => {
        decoder = new ByteDecoder(decoding, options);
        return stream.flush();
      },
    };
  }

  idOf(piece: string): number | undefined {
    return this.#parsing.token_to_id(piece);
  }

  pieceOf(id: number): string {
    const piece = this.#pieces[id];
    if (piece === undefined) {
      throw new TokenizerError(component, `expected ids of 0 … ${this.vocabSize - 1}, got ${id}`, {
        hint: "are these ids of another tokenizer?",
        fields: { id },
      });
    }
    return piece;
  }

  /** The ids that give text, all checked. */
  #shown(ids: Iterable<number>, options: DecodeOptions): number[] {
    const list = [...ids];
    for (const id of list) this.pieceOf(id);
    return options.specialTokens === "show" ? list : list.filter((id) => !this.#specialIds.has(id));
  }

  #decodeByLibrary(ids: Iterable<number>, options: DecodeOptions): string {
    const shown = this.#shown(ids, options);
    // The library refuses an empty list, and by itself would change spaces before punctuation.
    return shown.length === 0 ? "" : this.#parsing.decode(shown, { clean_up_tokenization_spaces: false });
  }
}

/** Bytes piece by piece, without the spaces that the encoder puts before a text. */
class ByteDecoder {
  readonly #decoding: PieceDecoding;
  #numToDrop: number;

  constructor(decoding: PieceDecoding, options: DecodeOptions) {
    this.#decoding = decoding;
    this.#numToDrop = options.startsText === false ? 0 : decoding.numLeadingSpaces;
  }

  next(piece: string, isAdded: boolean): Uint8Array {
    let bytes = isAdded ? utf8.encode(piece) : this.#decoding.bytesOf(piece);
    for (; this.#numToDrop > 0 && bytes[0] === 0x20; this.#numToDrop--) bytes = bytes.subarray(1);
    if (bytes.length > 0) this.#numToDrop = 0;
    return bytes;
  }
}

/**
 * Streams a decoder whose pieces depend on those before them: what is new in the text of a short window of ids. The window begins at
 * the last piece but one that gave text, since a decoder looks no further back.
 */
function windowedDecoder(decode: (ids: readonly number[]) => string): StreamDecoder {
  let window: number[] = [];
  let numDone = 0;
  let hasBegun = false;
  const take = (): string => {
    const done = numDone === 0 ? "" : decode(window.slice(0, numDone));
    const text = decode(window).slice(done.length);
    if (text === "") return "";
    // The first piece of all is decoded differently, so it stays until another has given text.
    if (hasBegun) window = window.slice(numDone);
    hasBegun = true;
    numDone = window.length;
    return text;
  };
  return {
    push: (ids) => {
      let text = "";
      for (const id of typeof ids === "number" ? [ids] : ids) {
        window.push(id);
        text += take();
      }
      return text;
    },
    flush: () => {
      window = [];
      numDone = 0;
      hasBegun = false;
      return "";
    },
  };
}

function libraryTokenizer(file: OfficialFile, path: string): Library {
  try {
    const library: Library = new LibraryTokenizer(file, {});
    return library;
  } catch (error) {
    throw new TokenizerError(
      component,
      `expected in ${path} a tokenizer of known parts, got the answer "${messageOf(error)}"`,
      { cause: error, fields: { path } },
    );
  }
}

/**
 * The same tokenizer to which special tokens are text. A unigram model would still find them in its vocabulary, so they get a name
 * there that no text can hold, a lone surrogate before their own; the unknown token keeps its own, by which the library finds it.
 */
function withoutSpecial(file: OfficialFile): OfficialFile {
  const special = new Set(file.added_tokens.filter((token) => token.special).map((token) => token.content));
  const { model } = file;
  const vocab = Array.isArray(model.vocab)
    ? model.vocab.map(([piece, score], id): [string, number] => [
        special.has(piece) && id !== model["unk_id"] ? `\ud800${piece}` : piece,
        score,
      ])
    : model.vocab;
  return {
    ...file,
    added_tokens: file.added_tokens.filter((token) => !token.special),
    model: { ...model, vocab },
  };
}
