/** Text from bytes that arrive in pieces, never cutting a UTF-8 character. Knows nothing of tokenizers but their `decodeBytes`. */
import type { DecodeOptions, StreamDecoder, Tokenizer } from "./tokenizer.ts";

export function createStreamDecoder(
  tokenizer: Pick<Tokenizer, "decodeBytes">,
  options: DecodeOptions = {},
): StreamDecoder {
  // Without ignoreBOM a byte order mark at the start of a text would be swallowed.
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return {
    push: (ids) =>
      decoder.decode(tokenizer.decodeBytes(typeof ids === "number" ? [ids] : ids, options), { stream: true }),
    flush: () => decoder.decode(),
  };
}
