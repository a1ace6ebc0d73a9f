/** A tokenizer whose every token is a letter, so that every token is an event of its own. */
import { createStreamDecoder } from "../src/text/index.ts";
import type { Tokenizer } from "../src/text/index.ts";
import { plainTokenizer } from "../test/plain-tokenizer.ts";

export function letterTokenizer(vocabSize: number): Tokenizer {
  const decodeBytes = (ids: Iterable<number>): Uint8Array => Uint8Array.from(ids, (id) => 97 + (id % 26));
  return {
    ...plainTokenizer(vocabSize),
    decode: (ids) => new TextDecoder().decode(decodeBytes(ids)),
    decodeBytes,
    createDecoder: (options) => createStreamDecoder({ decodeBytes }, options),
  };
}
