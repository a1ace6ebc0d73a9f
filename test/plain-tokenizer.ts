/** A tokenizer for tests of engines: token `i` is the one byte `i` mod 256, none is special but those that are named. */
import { createStreamDecoder } from "../src/text/index.ts";
import type { Tokenizer } from "../src/text/index.ts";

export function plainTokenizer(vocabSize: number, eosId = vocabSize - 1): Tokenizer {
  const decodeBytes = (ids: Iterable<number>): Uint8Array =>
    Uint8Array.from([...ids].filter((id) => id !== eosId).map((id) => id % 256));
  const encodeBytes = (bytes: Uint8Array): Int32Array => Int32Array.from(bytes, (byte) => byte % vocabSize);
  return {
    vocabSize,
    bosId: undefined,
    eosId,
    padId: undefined,
    unkId: undefined,
    specialTokens: new Map([["</s>", eosId]]),
    encode: (text) => encodeBytes(new TextEncoder().encode(text)),
    encodeBytes,
    decode: (ids) => new TextDecoder().decode(decodeBytes(ids)),
    decodeBytes,
    createDecoder: (options) => createStreamDecoder({ decodeBytes }, options),
    idOf: () => undefined,
    pieceOf: (id) => String(id),
  };
}
