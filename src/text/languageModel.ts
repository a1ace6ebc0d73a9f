/**
 * What evaluation, guardrails and clients ask of a language model, whether it runs in this process or behind a server.
 * Types only. Invariants: results stand in the order of the requests and do not depend on how an implementation batches them;
 * nothing is put before a prompt that the request does not name.
 */
import type { Tokenizer } from "./tokenizer.ts";

/** Text, encoded with special tokens read as text, or ids as they are. */
export type Prompt = string | Int32Array;

/** How the next token is chosen. Without any of it: the most likely one. */
export interface SamplingOptions {
  /** 0 (default): always the most likely token. */
  temperature?: number;
  /** Only the k most likely tokens; 0 (default): all. */
  topK?: number;
  /** Only the most likely tokens that together reach this probability; 0 (default): all. */
  topP?: number;
  /** Divides the logits of tokens already there when positive, multiplies when negative; 1 (default): none. */
  repetitionPenalty?: number;
  /** The same seed and request give the same tokens. */
  seed?: number;
}

export interface GenerateRequest {
  prompt: Prompt;
  maxNewTokens: number;
  sampling?: SamplingOptions;
  /** Generation ends before the first of these; they are not part of the text. */
  stop?: readonly string[];
  /** Go on after the end-of-document token. */
  ignoreEos?: boolean;
  /** With each token its log-probability and those of so many most likely ones; undefined: none are given. */
  numLogprobs?: number;
}

export interface TokenLogprob {
  id: number;
  /** Natural logarithm of the probability the model gives the token (before temperature and cuts). */
  logprob: number;
}

/** "eos": the end-of-document token; "stop": a stop string; "length": maxNewTokens or no room left; "cancelled": by signal. */
export type FinishReason = "eos" | "stop" | "length" | "cancelled";

/** One step of one request. Steps of several requests come in any order; those of one request in theirs. */
export type GenerationEvent =
  | {
      type: "token";
      /** Which request, by its place in the list. */
      index: number;
      id: number;
      /** The text that became certain: may be empty, and may hold back what could be the start of a stop string. */
      text: string;
      logprob?: number;
      mostLikely?: readonly TokenLogprob[];
    }
  | {
      type: "end";
      index: number;
      reason: FinishReason;
      /** Text held back until now; the request's text is that of all its events together. */
      text: string;
      numPromptTokens: number;
      numNewTokens: number;
    };

export interface LoglikelihoodRequest {
  /**
   * What the model has read. With an empty context the model's prefix token (beginning or else end of document) stands in.
   * Over-long requests lose tokens on the left.
   */
  context: Prompt;
  /** What is scored: after the context, with whitespace at the context's end counted to it (as the reference harness does). */
  continuation: Prompt;
}

export interface Loglikelihood {
  /** Sum over the continuation's tokens of the natural logarithm of their probability. */
  logprob: number;
  /** Whether each token of the continuation was the most likely one. */
  isGreedy: boolean;
  numTokens: number;
}

export interface RollingLoglikelihood {
  /** Sum over all tokens of the text, each scored once, the first after the prefix token. */
  logprob: number;
  numTokens: number;
}

export interface RequestOptions {
  signal?: AbortSignal;
  /** Called after each finished request. */
  onProgress?: (numDone: number, numRequests: number) => void;
}

export interface LanguageModel {
  /** For reports. */
  readonly name: string;
  /** Undefined when the model is behind a server that does not show it. */
  readonly tokenizer: Tokenizer | undefined;
  /** The longest prompt and answer together. */
  readonly maxSequenceTokens: number;
  generate(requests: readonly GenerateRequest[], options?: RequestOptions): AsyncIterable<GenerationEvent>;
  loglikelihood(
    requests: readonly LoglikelihoodRequest[],
    options?: RequestOptions,
  ): Promise<Loglikelihood[]>;
  /** The likelihood of whole texts of any length, in windows of the model's length. */
  loglikelihoodRolling(texts: readonly Prompt[], options?: RequestOptions): Promise<RollingLoglikelihood[]>;
}
