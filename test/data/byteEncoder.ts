/** An encoder for tests and benchmarks, loadable by workers: a token per UTF-8 byte, and 256 for the end of a document. */
import type { DocumentEncoder } from "../../src/data/index.ts";

export interface ByteEncoderOptions {
  vocabSize?: number;
  /** Throws at a text that contains this. */
  failAt?: string;
}

export function createEncoder({ vocabSize = 257, failAt }: ByteEncoderOptions = {}): DocumentEncoder {
  return {
    vocabSize,
    eosId: 256,
    encode: (text) => {
      if (failAt !== undefined && text.includes(failAt)) throw new RangeError(`cannot encode ${failAt}`);
      return Buffer.from(text, "utf8");
    },
  };
}

/** For `EncoderModule.module`. */
export const byteEncoderModule = import.meta.url;
