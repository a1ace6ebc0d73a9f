/**
 * Token sequences that a likelihood is read from. Rules of the reference harness (lm-evaluation-harness, `TemplateLM._encode_pair`,
 * `HFLM._loglikelihood_tokens`, `get_rolling_token_windows`).
 */
import { encodePair } from "../../text/index.ts";
import type { LoglikelihoodRequest, Prompt, Tokenizer } from "../../text/index.ts";

/** Tokens of which those from `from` (at least 1) on are scored. */
export interface ScoredTokens {
  tokens: readonly number[];
  from: number;
}

export function idsOf(tokenizer: Tokenizer, prompt: Prompt): number[] {
  return Array.from(typeof prompt === "string" ? tokenizer.encode(prompt) : prompt);
}

/** What stands in for an empty context. */
export function prefixToken(tokenizer: Tokenizer): number {
  return tokenizer.bosId ?? tokenizer.eosId;
}

/**
 * Context and continuation as one sequence: whitespace at the context's end belongs to the continuation, whose tokens are those of both
 * together beyond the context's own. At most `maxContext` tokens are read: more are cut off on the left.
 */
export function pairTokens(
  tokenizer: Tokenizer,
  request: LoglikelihoodRequest,
  maxContext: number,
): ScoredTokens {
  const { context, continuation } = encodePair(tokenizer, request.context, request.continuation);
  const tokens = [...context, ...continuation];
  // The last token is predicted, not read.
  const numCut = Math.max(0, tokens.length - (maxContext + 1));
  return { tokens: tokens.slice(numCut), from: Math.max(1, context.length - numCut) };
}

/**
 * Windows over a text of any length in which every token is scored once: the first after the prefix token; each later window holds as
 * many new tokens as fit after one token of context, the last one more context.
 */
export function rollingWindows(
  tokens: readonly number[],
  prefix: number,
  maxContext: number,
): ScoredTokens[] {
  if (tokens.length === 0) return [];
  const numFirst = Math.min(maxContext, tokens.length);
  const windows: ScoredTokens[] = [{ tokens: [prefix, ...tokens.slice(0, numFirst)], from: 1 }];
  for (let numScored = numFirst; numScored < tokens.length;) {
    const numNew = Math.min(tokens.length - numScored, maxContext);
    const end = numScored + numNew;
    const window = tokens.slice(end - maxContext - 1, end);
    windows.push({ tokens: window, from: window.length - numNew });
    numScored = end;
  }
  return windows;
}
