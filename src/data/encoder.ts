/** What the preparation of data needs of a tokenizer; a `Tokenizer` of src/text satisfies it. */
export interface DocumentEncoder {
  /** The ids of a text, without any begin or end token. */
  encode(text: string): ArrayLike<number>;
  /** Appended to every document that has tokens. */
  readonly eosId: number;
  /** Ids are below this; it decides the width of the ids on disk. */
  readonly vocabSize: number;
}

/**
 * An encoder that worker threads can make for themselves: the URL of a module that exports `createEncoder(options)`, and the
 * options, which are structured-cloneable.
 */
export interface EncoderModule {
  readonly module: string;
  readonly options?: unknown;
}

/** A trained tokenizer by its tokenizer.json, or the folder of it. */
export interface TokenizerFile {
  readonly tokenizerPath: string;
}

/** How workers come by their encoder. */
export type EncoderSpec = EncoderModule | TokenizerFile;
