/**
 * What every tokenizer is to the rest of Nautilus: text and bytes to piece ids and back. Knows nothing of how a tokenizer is
 * trained or stored. Invariants: no beginning or end mark is added that was not asked for. Of tokenizers that Nautilus trains, also:
 * `decodeBytes(encode(text))` is the UTF-8 of `text` and `decodeBytes(encodeBytes(bytes))` is `bytes`, for any text and any bytes.
 * Those of other origin may normalise texts, put a space before them and know no piece for some characters, as their file says.
 */

export interface EncodeOptions {
  /**
   * How the text of a special token ("</s>") inside `text` is read. "text" (default): as the characters it is made of, so that
   * a document or a user's message cannot forge the end of a document; the official library does this with
   * `encode_special_tokens = True`. "parse": as the special token itself, which is the official library's default; for
   * templates that Nautilus wrote.
   */
  specialTokens?: "text" | "parse";
}

export interface DecodeOptions {
  /** "skip" (default): special tokens give nothing; "show": they give their text. */
  specialTokens?: "skip" | "show";
  /**
   * Some tokenizers of other origin put a space before every text and take it away when they decode. false: the ids go on from
   * an earlier text, as generated ones do, and a space at their beginning stays. Default: true.
   */
  startsText?: boolean;
}

/** Text out of ids that arrive one by one: what it gives is always whole characters. */
export interface StreamDecoder {
  /** The text that became certain with these ids; bytes of an unfinished character are kept back. */
  push(ids: number | Iterable<number>): string;
  /** What was kept back, as U+FFFD, at the end of a text; the decoder is then as new. */
  flush(): string;
}

export interface Tokenizer {
  /** Ids are 0 … vocabSize - 1. */
  readonly vocabSize: number;
  /** Stands before a text in some models; never added unasked. */
  readonly bosId: number | undefined;
  /** Ends a document, in training data and in generation. */
  readonly eosId: number;
  readonly padId: number | undefined;
  readonly unkId: number | undefined;
  /** The special tokens by their text. */
  readonly specialTokens: ReadonlyMap<string, number>;

  /** The ids of `text`; a lone surrogate counts as U+FFFD. */
  encode(text: string, options?: EncodeOptions): Int32Array;
  /** The ids of any bytes, UTF-8 or not; special tokens are never parsed. */
  encodeBytes(bytes: Uint8Array): Int32Array;
  /** The text of `ids`; bytes that are not UTF-8 become U+FFFD. Throws TokenizerError for an id that does not exist. */
  decode(ids: Iterable<number>, options?: DecodeOptions): string;
  /** The exact bytes of `ids`. Throws TokenizerError for an id that does not exist. */
  decodeBytes(ids: Iterable<number>, options?: DecodeOptions): Uint8Array;
  /** A decoder for text that is generated piece by piece; its pieces together are `decode` of all ids. */
  createDecoder(options?: DecodeOptions): StreamDecoder;
  /** The id of a piece as the tokenizer's file spells it, or undefined. */
  idOf(piece: string): number | undefined;
  /** The piece of an id as the tokenizer's file spells it ("<0x0A>" for a byte). Throws TokenizerError for an id that does not exist. */
  pieceOf(id: number): string;
}
