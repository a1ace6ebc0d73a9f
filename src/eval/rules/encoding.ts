/** Ways to encode a pair that are not the reference harness's: NVIDIA's copy of it, and MMLU's own implementation. */
import { TokenizerError } from "../../base/index.ts";
import type { Tokenizer } from "../../text/index.ts";

interface TextPair {
  context: string;
  continuation: string;
}

interface IdPair {
  context: Int32Array;
  continuation: Int32Array;
}

/**
 * Context and continuation each alone. A tokenizer that puts a space piece of its own before every text has that piece taken off
 * the continuation, which brings its space along (NVIDIA's harness drops the first id with SentencePiece).
 */
export function encodeApart(tokenizer: Tokenizer, { context, continuation }: TextPair): IdPair {
  const ids = tokenizer.encode(continuation);
  const startsWithSpacePiece = ids.length > 1 && tokenizer.pieceOf(ids[0]) === "▁";
  return { context: tokenizer.encode(context), continuation: startsWithSpacePiece ? ids.slice(1) : ids };
}

/** The last token of a choice encoded alone, without the space before it: `tokenizer("A").input_ids[-1]`. */
export function lastTokenOf(tokenizer: Tokenizer, { context, continuation }: TextPair): IdPair {
  const ids = tokenizer.encode(continuation.trimStart());
  if (ids.length === 0)
    throw new TokenizerError("eval", `expected tokens for ${JSON.stringify(continuation)}, got none`);
  return { context: tokenizer.encode(context), continuation: ids.slice(-1) };
}
