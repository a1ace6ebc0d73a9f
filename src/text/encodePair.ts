/**
 * Context and continuation as token ids, split where the reference harness splits them (lm-evaluation-harness,
 * `TemplateLM._encode_pair`): both are encoded together, and the continuation is what lies beyond the length of the context
 * encoded alone. Whitespace at the context's end counts to the continuation, so that word-initial pieces stay whole.
 */
import { TokenizerError } from "../base/index.ts";
import type { Prompt } from "./languageModel.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** What Python's `str.isspace` and `str.strip` take for whitespace: JavaScript's set without U+FEFF, with U+001C-U+001F and U+0085. */
const trailingWhitespace =
  // oxlint-disable-next-line no-control-regex -- these control characters are whitespace to the reference harness
  /[\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+$/u;

export interface EncodedPair {
  /** At least one token. */
  context: Int32Array;
  /** At least one token. */
  continuation: Int32Array;
}

/** The token that stands before texts that nothing precedes: beginning of text if there is one, else end of document. */
export function prefixTokenOf(tokenizer: Tokenizer): number {
  return tokenizer.bosId ?? tokenizer.eosId;
}

/**
 * Encodes a pair. Ids are taken as they are, and texts beside ids are encoded alone. Throws TokenizerError when the continuation
 * has no token of its own.
 */
export function encodePair(tokenizer: Tokenizer, context: Prompt, continuation: Prompt): EncodedPair {
  return pairEncoder(tokenizer)(context, continuation);
}

/** `encodePair` that encodes a context once for the pairs with it that follow each other. */
export function pairEncoder(tokenizer: Tokenizer): (context: Prompt, continuation: Prompt) => EncodedPair {
  let last: { text: string; ids: Int32Array } | undefined;
  const encodeContext = (text: string): Int32Array => {
    if (last?.text !== text) last = { text, ids: tokenizer.encode(text) };
    return last.ids;
  };
  return (context, continuation) => checkedPair(tokenizer, { context, continuation, encodeContext });
}

function checkedPair(
  tokenizer: Tokenizer,
  {
    context,
    continuation,
    encodeContext,
  }: { context: Prompt; continuation: Prompt; encodeContext: (text: string) => Int32Array },
): EncodedPair {
  const pair =
    typeof context === "string" && typeof continuation === "string"
      ? encodeTogether(tokenizer, { context, continuation, encodeContext })
      : { context: idsOf(tokenizer, context), continuation: idsOf(tokenizer, continuation) };
  if (pair.continuation.length === 0) {
    throw new TokenizerError(
      "tokenizer",
      `expected a continuation with tokens of its own, got ${JSON.stringify(typeof continuation === "string" ? continuation : [...continuation])} after a context whose last token takes it in`,
      { hint: "is it the model's own tokenizer?" },
    );
  }
  return pair.context.length > 0 ? pair : withPrefix(tokenizer, pair.continuation);
}

function idsOf(tokenizer: Tokenizer, prompt: Prompt): Int32Array {
  return typeof prompt === "string" ? tokenizer.encode(prompt) : prompt;
}

function encodeTogether(
  tokenizer: Tokenizer,
  {
    context,
    continuation,
    encodeContext,
  }: { context: string; continuation: string; encodeContext: (text: string) => Int32Array },
): EncodedPair {
  // An empty context is left to the prefix token, even where whitespace was all there was before the continuation.
  if (context === "") return { context: new Int32Array(0), continuation: tokenizer.encode(continuation) };
  const kept = context.replace(trailingWhitespace, "");
  const contextIds = encodeContext(kept);
  const whole = tokenizer.encode(context + continuation);
  return { context: contextIds, continuation: whole.slice(contextIds.length) };
}

/** A continuation that begins with the prefix token itself brings its own context. */
function withPrefix(tokenizer: Tokenizer, continuation: Int32Array): EncodedPair {
  const prefix = prefixTokenOf(tokenizer);
  if (continuation[0] === prefix && continuation.length > 1)
    return { context: continuation.slice(0, 1), continuation: continuation.slice(1) };
  return { context: Int32Array.of(prefix), continuation };
}
