/**
 * Token sequences that a likelihood is read from. Rules of the reference harness (lm-evaluation-harness, `TemplateLM._encode_pair`,
 * `HFLM._loglikelihood_tokens`, `get_rolling_token_windows`).
 */
import type { EncodedPair, Prompt, Tokenizer } from "../../text/index.ts";

/** Tokens of which those from `from` (at least 1) on are scored. */
export interface ScoredTokens {
  tokens: Int32Array;
  from: number;
}

export function idsOf(tokenizer: Tokenizer, prompt: Prompt): Int32Array {
  return typeof prompt === "string" ? tokenizer.encode(prompt) : prompt;
}

/** What stands in for an empty context. */
export function prefixToken(tokenizer: Tokenizer): number {
  return tokenizer.bosId ?? tokenizer.eosId;
}

/**
 * Context and continuation as one sequence: whitespace at the context's end belongs to the continuation, whose tokens are those of both
 * together beyond the context's own. At most `maxContext` tokens are read: more are cut off on the left.
 */
export function pairTokens({ context, continuation }: EncodedPair, maxContext: number): ScoredTokens {
  const tokens = new Int32Array(context.length + continuation.length);
  tokens.set(context);
  tokens.set(continuation, context.length);
  // The last token is predicted, not read.
  const numCut = Math.max(0, tokens.length - (maxContext + 1));
  return { tokens: tokens.subarray(numCut), from: Math.max(1, context.length - numCut) };
}

/**
 * Windows over a text of any length in which every token is scored once: the first after the prefix token; each later window holds as
 * many new tokens as fit after one token of context, the last one more context.
 */
export function rollingWindows(tokens: Int32Array, prefix: number, maxContext: number): ScoredTokens[] {
  if (tokens.length === 0) return [];
  const numFirst = Math.min(maxContext, tokens.length);
  const windows: ScoredTokens[] = [
    { tokens: Int32Array.of(prefix, ...tokens.subarray(0, numFirst)), from: 1 },
  ];
  for (let numScored = numFirst; numScored < tokens.length;) {
    const numNew = Math.min(tokens.length - numScored, maxContext);
    const end = numScored + numNew;
    const window = tokens.subarray(end - maxContext - 1, end);
    windows.push({ tokens: window, from: window.length - numNew });
    numScored = end;
  }
  return windows;
}
