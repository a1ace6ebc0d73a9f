/**
 * The language model that evaluation and guardrails ask, over an engine. A context is read once for all its continuations: see
 * reads.ts. Results keep the order of the requests.
 */
import { RequestError } from "../../base/index.ts";
import { pairEncoder } from "../../text/index.ts";
import type {
  FinishReason,
  GenerateRequest,
  GenerationEvent,
  LanguageModel,
  Loglikelihood,
  LoglikelihoodRequest,
  Prompt,
  RequestOptions,
  RollingLoglikelihood,
  Tokenizer,
} from "../../text/index.ts";
import type {
  Engine,
  EngineEvent,
  EngineFinishReason,
  EngineRequest,
  TokenLogprobs,
} from "../engine/contract.ts";
import { EventQueue } from "../engine/eventQueue.ts";
import { promptTokens } from "../generateText.ts";
import { parseSampling } from "../sampling.ts";
import { idsOf, pairTokens, prefixToken, rollingWindows } from "./pairs.ts";
import type { ScoredTokens } from "./pairs.ts";
import { planReads, ReadProgress } from "./reads.ts";

export interface EngineLanguageModelOptions {
  /** For reports. */
  name: string;
  tokenizer: Tokenizer;
  /** Requests given to the engine at once: enough to fill its steps. Default 2048. */
  maxConcurrent?: number;
  /** Name of a loaded adapter that all requests go through. */
  adapter?: string | undefined;
}

const finishReasons: Readonly<Record<EngineFinishReason, FinishReason>> = {
  length: "length",
  end: "eos",
  stop: "stop",
  aborted: "cancelled",
};

export class EngineLanguageModel implements LanguageModel {
  readonly name: string;
  readonly tokenizer: Tokenizer;
  readonly #engine: Engine;
  readonly #maxConcurrent: number;
  readonly #adapter: string | undefined;

  constructor(engine: Engine, options: EngineLanguageModelOptions) {
    this.name = options.name;
    this.tokenizer = options.tokenizer;
    this.#engine = engine;
    this.#maxConcurrent = options.maxConcurrent ?? 2048;
    this.#adapter = options.adapter;
  }

  get maxSequenceTokens(): number {
    return this.#engine.info.maxContext;
  }

  async *generate(
    requests: readonly GenerateRequest[],
    options: RequestOptions = {},
  ): AsyncGenerator<GenerationEvent> {
    const queue = new EventQueue<GenerationEvent>();
    const leaving = new AbortController();
    const { signal } = options;
    const signals = signal === undefined ? leaving.signal : AbortSignal.any([signal, leaving.signal]);
    const all = this.#forEach(requests.keys(), async (index) => {
      const request = this.#generation(requests[index]);
      for await (const event of this.#engine.generate(request, signals)) {
        const known = generationEvent(index, event);
        if (known !== undefined) queue.push(known);
      }
    }).catch((error: unknown) => queue.fail(error));
    try {
      for (let numDone = 0; numDone < requests.length;) {
        for (const event of await queue.next()) {
          if (event.type === "end") numDone++;
          yield event;
          if (event.type === "end") options.onProgress?.(numDone, requests.length);
        }
      }
    } finally {
      leaving.abort();
      await all;
    }
  }

  #generation({
    prompt,
    maxNewTokens,
    sampling = {},
    stop,
    ignoreEos,
    numLogprobs,
  }: GenerateRequest): EngineRequest {
    const tokens = typeof prompt === "string" ? promptTokens(this.tokenizer, prompt) : Array.from(prompt);
    // As the reference harness: room for the whole answer, and the beginning of the prompt goes.
    const room = Math.max(1, this.maxSequenceTokens - maxNewTokens);
    return {
      prompt: tokens.slice(-room),
      sampling: parseSampling({
        maxTokens: maxNewTokens,
        temperature: sampling.temperature ?? 0,
        topK: sampling.topK ?? 0,
        topP: sampling.topP ?? 0,
        repetitionPenalty: sampling.repetitionPenalty ?? 1,
        seed: sampling.seed ?? 0,
        stop: [...(stop ?? [])],
        stopAtEnd: ignoreEos !== true,
      }),
      numLogprobs,
      adapter: this.#adapter,
    };
  }

  async loglikelihood(
    requests: readonly LoglikelihoodRequest[],
    options: RequestOptions = {},
  ): Promise<Loglikelihood[]> {
    const encode = pairEncoder(this.tokenizer);
    const pairs = requests.map(({ context, continuation }) =>
      pairTokens(encode(context, continuation), this.maxSequenceTokens),
    );
    let numDone = 0;
    return await this.#score(pairs, options, () => options.onProgress?.(++numDone, requests.length));
  }

  async loglikelihoodRolling(
    texts: readonly Prompt[],
    options: RequestOptions = {},
  ): Promise<RollingLoglikelihood[]> {
    const prefix = prefixToken(this.tokenizer);
    const windows = texts.map((text) =>
      rollingWindows(idsOf(this.tokenizer, text), prefix, this.maxSequenceTokens),
    );
    const textOf = windows.flatMap((list, text) => list.map(() => text));
    const numLeft = windows.map(({ length }) => length);
    let numDone = 0;
    const scores = await this.#score(windows.flat(), options, (window) => {
      if (--numLeft[textOf[window]] === 0) options.onProgress?.(++numDone, texts.length);
    });
    const results = texts.map((): RollingLoglikelihood => ({ logprob: 0, numTokens: 0 }));
    for (const [window, { logprob, numTokens }] of scores.entries()) {
      results[textOf[window]].logprob += logprob;
      results[textOf[window]].numTokens += numTokens;
    }
    return results;
  }

  /** The likelihood of the scored tokens of each sequence. Throws the signal's reason when it is aborted. */
  async #score(
    sequences: readonly ScoredTokens[],
    { signal }: RequestOptions,
    onScored: (index: number) => void,
  ): Promise<Loglikelihood[]> {
    const { reads, places } = planReads(sequences);
    const scores: TokenLogprobs[] = [];
    const progress = new ReadProgress(reads, places);
    await this.#forEach(reads.keys(), async (place) => {
      signal?.throwIfAborted();
      const read = reads[place];
      const request: EngineRequest = {
        prompt: Array.from(read.tokens),
        sampling: scoring,
        promptLogprobs: 0,
        promptLogprobsFrom: read.from,
        promptAlternatives: read.alternatives,
        adapter: this.#adapter,
      };
      for await (const event of this.#engine.generate(request, signal)) {
        if (event.type === "prompt") {
          for (const [i, score] of event.logprobs.entries()) scores[read.places[i]] = score;
          for (const [i, score] of event.alternatives.entries()) scores[read.alternatives[i].place] = score;
        } else if (event.type === "end" && event.reason === "aborted") {
          signal?.throwIfAborted();
          throw new RequestError("engine", "expected a whole likelihood, got a request that was aborted");
        }
      }
      for (const index of progress.finish(place)) onScored(index);
    });
    return places.map((list) => likelihoodOf(list.map((place) => scores[place])));
  }

  /** Runs `work` for all, so many at once. Rejects with the first error, when all that was begun has ended. */
  async #forEach(indices: Iterable<number>, work: (index: number) => Promise<void>): Promise<void> {
    const queue = Iterator.from(indices);
    let failure: { error: unknown } | undefined;
    const runSome = async (): Promise<void> => {
      for (const index of queue) {
        try {
          await work(index);
        } catch (error) {
          failure ??= { error };
        }
        if (failure !== undefined) return;
      }
    };
    await Promise.all(Array.from({ length: this.#maxConcurrent }, runSome));
    if (failure !== undefined) throw failure.error;
  }
}

const scoring = parseSampling({ maxTokens: 0 });

function likelihoodOf(scores: readonly TokenLogprobs[]): Loglikelihood {
  return {
    logprob: scores.reduce((sum, { logprob }) => sum + logprob, 0),
    isGreedy: scores.every(({ rank }) => rank === 0),
    numTokens: scores.length,
  };
}

function generationEvent(index: number, event: EngineEvent): GenerationEvent | undefined {
  if (event.type === "token") {
    const mostLikely = event.mostLikely?.map(({ token, logprob }) => ({ id: token, logprob }));
    const { token, text, logprob } = event;
    return {
      type: "token",
      index,
      id: token,
      text,
      logprob,
      ...(mostLikely === undefined ? {} : { mostLikely }),
    };
  }
  if (event.type === "prompt") return undefined;
  const { reason, text, numPromptTokens, numNewTokens } = event;
  return { type: "end", index, reason: finishReasons[reason], text, numPromptTokens, numNewTokens };
}
