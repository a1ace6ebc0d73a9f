/**
 * What an engine is to those who serve, evaluate or converse with a model: token ids in, events out, many requests at once.
 * Types only. The same interface stands before an engine in this thread and before one in a worker thread.
 *
 * Invariants: what a request gets does not depend on what else is running (same seed, same tokens); results of one request come
 * in order; when a request ends, is aborted or fails, its cache blocks are free at once.
 */
import type { SamplingOptions } from "../sampling.ts";

/** Which tokens may come next, as source text: compiled by the engine, once per distinct text. */
export type OutputConstraint =
  | { kind: "regex"; pattern: string }
  /** A JSON schema, parsed. */
  | { kind: "json-schema"; schema: unknown }
  /** Any JSON object. */
  | { kind: "json-object" };

export interface EngineRequest {
  prompt: readonly number[];
  sampling: SamplingOptions;
  /** Tokens that end the sequence, besides those the engine was opened with. */
  endTokens?: readonly number[];
  /** With each token the log-probabilities of so many most likely ones; undefined: the drawn token's alone. */
  numLogprobs?: number | undefined;
  /** Log-probabilities of the prompt's tokens too, each with so many most likely ones. The first has none. */
  promptLogprobs?: number | undefined;
  /**
   * Only from this prompt token on (default 1: all that have any). What lies before it may come from the cache, so that many
   * continuations of one context read it once.
   */
  promptLogprobsFrom?: number | undefined;
  /**
   * Other tokens whose log-probabilities are wanted too, each at the index of a prompt token that has one, in the order of these:
   * choices after one context cost one reading of it.
   */
  promptAlternatives?: readonly PromptAlternative[] | undefined;
  constraint?: OutputConstraint | undefined;
  /** Name of a loaded adapter; undefined: the base model. */
  adapter?: string | undefined;
  /** Higher goes first; equal ones in order of arrival. Default 0. */
  priority?: number;
}

/** What might stand in the place of a prompt token. */
export interface PromptAlternative {
  readonly at: number;
  readonly token: number;
}

export interface TokenLogprobs {
  token: number;
  /** Natural logarithm of the model's probability, before temperature, penalties and cuts. */
  logprob: number;
  /** Place of the token among all by probability, 0 for the most likely. Given where log-probabilities were asked for. */
  rank?: number;
  mostLikely?: readonly { token: number; logprob: number }[];
}

export type EngineFinishReason = "length" | "end" | "stop" | "aborted";

export type EngineEvent =
  /** Once, before any token, where prompt log-probabilities were asked for: one entry a prompt token from the second (or `promptLogprobsFrom`) on. */
  | {
      type: "prompt";
      logprobs: readonly TokenLogprobs[];
      /** Of `promptAlternatives`, in their order; without any: empty. */
      alternatives: readonly TokenLogprobs[];
    }
  | ({
      type: "token";
      /** Text that became certain; what may yet become a stop string is held back. */
      text: string;
    } & TokenLogprobs)
  | {
      type: "end";
      reason: EngineFinishReason;
      /** Text held back until now. */
      text: string;
      numPromptTokens: number;
      /** Prompt tokens whose keys and values were already in the cache. */
      numCachedTokens: number;
      numNewTokens: number;
    };

export interface EngineStatistics {
  numRunning: number;
  numWaiting: number;
  numBlocks: number;
  /** Blocks that running sequences hold. */
  numUsedBlocks: number;
  /** Totals since the start. */
  numPromptTokens: number;
  numCachedPromptTokens: number;
  numGeneratedTokens: number;
  numPreemptions: number;
  numSteps: number;
  /** Rows of all steps: prompt tokens that were read, and drawn tokens that others follow. */
  numRows: number;
  /** Seconds inside steps: on the device, and in the scheduler's own code. */
  stepSeconds: number;
  hostSeconds: number;
  /** Of stepSeconds: waiting for results. The rest packs and queues. */
  waitSeconds: number;
}

/** What a server shows of the model behind an engine. */
export interface EngineModelInfo {
  /** Longest prompt and answer together. */
  maxContext: number;
  vocabSize: number;
  /** C */
  width: number;
  numParameters: number;
  /** Of weights and activations, but for what the next two say. */
  dtype: string;
  /** What the matrices of the blocks are held as; null: as `dtype`. */
  quantise: string | null;
  /** What the cache holds keys and values as. */
  kvCache: string;
  device: string;
  adapters: readonly string[];
}

export interface Engine extends AsyncDisposable {
  readonly info: EngineModelInfo;
  /**
   * Runs a request; the events end with exactly one of type "end". Aborting the signal ends it with reason "aborted"; leaving the
   * loop early aborts too. Throws RequestError for what the request asks, EngineFailedError when the engine died under it.
   */
  generate(request: EngineRequest, signal?: AbortSignal): AsyncIterable<EngineEvent>;
  /** Hidden states after the final norm of each prompt, f32 (C): the mean over its tokens, or the last token's. */
  embed(prompts: readonly (readonly number[])[], pooling: "mean" | "last"): Promise<Float32Array[]>;
  statistics(): EngineStatistics;
  /** Adds an adapter folder under a name, or takes it away. Throws CheckpointError, RequestError. */
  loadAdapter(name: string, folder: string): Promise<void>;
  unloadAdapter(name: string): Promise<void>;
}
