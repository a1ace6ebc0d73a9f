/**
 * An engine for tests of protocols: what it says follows from the prompt's ids and the seed alone. Its "model" is a probability of each
 * token given all tokens before it, so that log-probabilities of a prompt and of an answer agree with each other; it can be given an
 * answer to say, be slow, fail, and crash. Constraints are recorded, not obeyed.
 */
import { setTimeout as delay } from "node:timers/promises";
import { join } from "node:path";
import { EngineFailedError, RandomStream, RequestError } from "../../src/base/index.ts";
import { TextStream } from "../../src/infer/index.ts";
import type {
  Engine,
  EngineEvent,
  EngineFinishReason,
  EngineModelInfo,
  EngineRequest,
  EngineStatistics,
  TokenLogprobs,
} from "../../src/infer/index.ts";
import { loadTokenizer } from "../../src/text/index.ts";
import type { Tokenizer } from "../../src/text/index.ts";

/** A small byte-pair tokenizer with bytes to fall back on. */
export function tinyTokenizer(): Tokenizer {
  return loadTokenizer(join(import.meta.dirname, "../fixtures/tokenizer"));
}

export interface FakeEngineOptions {
  tokenizer?: Tokenizer;
  maxContext?: number;
  /** Milliseconds before each token. 0 (default): none, but other work gets its turn. */
  tokenMs?: number;
  /** The greedy answer to a prompt, followed by the end of text; undefined: what the probabilities say. */
  answer?: (prompt: string) => string | undefined;
  /** Thrown by `generate` before the first token. */
  failWith?: Error;
  /** The engine dies after so many tokens in all, and answers nothing from then on until `restart`. */
  crashAfterTokens?: number;
  adapters?: readonly string[];
  width?: number;
  quantise?: string;
  kvCache?: string;
  /** Always the same token, without probabilities to work out: for measuring what lies around an engine. */
  isQuick?: boolean;
}

/** How much likelier a token of the wished-for answer is. */
const wish = 24;
/** A byte of ASCII. */
const quickToken = 70;

export class FakeEngine implements Engine {
  readonly info: EngineModelInfo;
  readonly tokenizer: Tokenizer;
  /** Every request that came, as it came. */
  readonly requests: EngineRequest[] = [];
  /** Requests that ended by their signal, or were left. */
  numAborted = 0;
  numDisposed = 0;
  readonly #options: FakeEngineOptions;
  #adapters: string[];
  #numRunning = 0;
  #isCrashed = false;
  #crashesAfter: number;
  readonly #totals = { numPromptTokens: 0, numGeneratedTokens: 0, numSteps: 0 };

  constructor(options: FakeEngineOptions = {}) {
    this.#options = options;
    this.#crashesAfter = options.crashAfterTokens ?? Infinity;
    this.tokenizer = options.tokenizer ?? tinyTokenizer();
    this.#adapters = [...(options.adapters ?? [])];
    const adapters = (): readonly string[] => this.#adapters;
    this.info = {
      maxContext: options.maxContext ?? 512,
      vocabSize: this.tokenizer.vocabSize,
      width: options.width ?? 8,
      numParameters: 1234,
      dtype: "f32",
      quantise: options.quantise ?? null,
      kvCache: options.kvCache ?? "f32",
      device: "fake",
      get adapters() {
        return adapters();
      },
    };
  }

  get numRunning(): number {
    return this.#numRunning;
  }

  async *generate(request: EngineRequest, signal?: AbortSignal): AsyncGenerator<EngineEvent> {
    this.requests.push(request);
    this.#check(request);
    this.#numRunning++;
    let isComplete = false;
    try {
      const prompt = request.prompt;
      this.#totals.numPromptTokens += prompt.length;
      if (request.promptLogprobs !== undefined)
        yield {
          type: "prompt",
          logprobs: this.#promptLogprobs(prompt, request.promptLogprobs),
          alternatives: [],
        };
      yield* this.#answer(request, signal);
      isComplete = true;
    } finally {
      this.#numRunning--;
      if (!isComplete || signal?.aborted === true) this.numAborted++;
    }
  }

  async embed(prompts: readonly (readonly number[])[], pooling: "mean" | "last"): Promise<Float32Array[]> {
    if (this.#isCrashed) throw new EngineFailedError("engine", "expected a running engine, got a dead one");
    const vectorOf = (ids: readonly number[]): Float32Array => {
      const random = new RandomStream(hashOf(ids));
      return Float32Array.from({ length: this.info.width }, () => random.nextNormal());
    };
    await delay(0);
    return prompts.map((prompt) => {
      if (pooling === "last") return vectorOf(prompt);
      const all = prompt.map((_, i) => vectorOf(prompt.slice(0, i + 1)));
      return Float32Array.from(
        { length: this.info.width },
        (_, c) => all.reduce((sum, vector) => sum + vector[c], 0) / all.length,
      );
    });
  }

  statistics(): EngineStatistics {
    return {
      numRunning: this.#numRunning,
      numWaiting: 0,
      numBlocks: 64,
      numUsedBlocks: Math.min(64, this.#numRunning),
      numPromptTokens: this.#totals.numPromptTokens,
      numCachedPromptTokens: 0,
      numGeneratedTokens: this.#totals.numGeneratedTokens,
      numPreemptions: 0,
      numSteps: this.#totals.numSteps,
      stepSeconds: 0,
      numRows: 0,
      hostSeconds: 0,
      waitSeconds: 0,
    };
  }

  async loadAdapter(name: string): Promise<void> {
    this.#adapters.push(name);
  }

  async unloadAdapter(name: string): Promise<void> {
    this.#adapters = this.#adapters.filter((other) => other !== name);
  }

  /** Lives again after a crash. */
  restart(): void {
    this.#isCrashed = false;
    this.#crashesAfter = Infinity;
  }

  crash(): void {
    this.#isCrashed = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.numDisposed++;
  }

  #check({ prompt, sampling }: EngineRequest): void {
    const { failWith } = this.#options;
    if (failWith !== undefined) throw failWith;
    this.#checkAlive();
    const { maxContext, vocabSize } = this.info;
    if (prompt.length === 0)
      throw new RequestError("engine", "expected a prompt of one token or more, got none");
    if (prompt.length + sampling.maxTokens > maxContext) {
      throw new RequestError(
        "engine",
        `expected prompt and answer within ${maxContext} tokens, got ${prompt.length} + ${sampling.maxTokens}`,
      );
    }
    const stranger = prompt.find((token) => token < 0 || token >= vocabSize);
    if (stranger !== undefined)
      throw new RequestError("engine", `expected tokens below ${vocabSize}, got ${stranger}`);
  }

  #checkAlive(): void {
    if (this.#totals.numGeneratedTokens >= this.#crashesAfter) this.#isCrashed = true;
    if (this.#isCrashed) throw new EngineFailedError("engine", "expected a running engine, got a dead one");
  }

  async *#answer(request: EngineRequest, signal: AbortSignal | undefined): AsyncGenerator<EngineEvent> {
    const { prompt, sampling, numLogprobs, endTokens = [] } = request;
    const ends = new Set([this.tokenizer.eosId, ...endTokens]);
    const wished = this.#options.answer?.(this.tokenizer.decode(prompt, { specialTokens: "show" }));
    const script =
      wished === undefined ? undefined : [...this.tokenizer.encode(wished), this.tokenizer.eosId];
    const stream = new TextStream(this.tokenizer.createDecoder({ startsText: false }), sampling.stop);
    const random = new RandomStream(sampling.seed);
    const ids = [...prompt];
    let reason: EngineFinishReason = "length";
    let numNewTokens = 0;
    while (numNewTokens < sampling.maxTokens) {
      await this.#pause(signal);
      if (signal?.aborted === true) {
        reason = "aborted";
        break;
      }
      this.#checkAlive();
      if (this.#options.isQuick === true) {
        numNewTokens++;
        this.#totals.numGeneratedTokens++;
        yield { type: "token", text: stream.push(quickToken), token: quickToken, logprob: 0 };
        continue;
      }
      const logits = this.#logits(ids, script?.[numNewTokens]);
      for (const [token, bias] of sampling.logitBias) logits[token] += bias;
      if (!sampling.stopAtEnd || numNewTokens < sampling.minTokens)
        for (const end of ends) logits[end] = -1e9;
      const token = draw(logits, sampling.topK === 1 ? 0 : sampling.temperature, random);
      ids.push(token);
      numNewTokens++;
      this.#totals.numGeneratedTokens++;
      this.#totals.numSteps++;
      const isEnd = ends.has(token);
      const text = isEnd ? "" : stream.push(token);
      yield {
        type: "token",
        text,
        ...this.#logprobsOf(ids.slice(0, -1), { token, numLogprobs, wished: script?.[numNewTokens - 1] }),
      };
      if (isEnd || stream.isStopped) {
        reason = isEnd ? "end" : "stop";
        break;
      }
    }
    yield {
      type: "end",
      reason,
      text: stream.flush(),
      numPromptTokens: prompt.length,
      numCachedTokens: 0,
      numNewTokens,
    };
  }

  async #pause(signal: AbortSignal | undefined): Promise<void> {
    const { tokenMs = 0 } = this.#options;
    if (tokenMs === 0) return new Promise((resolve) => setImmediate(resolve));
    await delay(tokenMs, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
  }

  #promptLogprobs(prompt: readonly number[], numLogprobs: number): TokenLogprobs[] {
    return prompt
      .slice(1)
      .map((token, i) => this.#logprobsOf(prompt.slice(0, i + 1), { token, numLogprobs, wished: undefined }));
  }

  #logprobsOf(
    before: readonly number[],
    {
      token,
      numLogprobs,
      wished,
    }: { token: number; numLogprobs: number | undefined; wished: number | undefined },
  ): TokenLogprobs {
    const logits = this.#logits(before, wished);
    const normaliser = logSumExp(logits);
    const logprob = logits[token] - normaliser;
    if (numLogprobs === undefined) return { token, logprob };
    const rank = logits.reduce((count, logit) => count + (logit > logits[token] ? 1 : 0), 0);
    const mostLikely = [...logits.keys()]
      .sort((a, b) => logits[b] - logits[a] || a - b)
      .slice(0, numLogprobs)
      .map((other) => ({ token: other, logprob: logits[other] - normaliser }));
    return { token, logprob, rank, mostLikely };
  }

  /** Numbers from -4 to 4 that follow from what stands before. */
  #logits(before: readonly number[], wished: number | undefined): Float64Array {
    const random = new RandomStream(hashOf(before));
    const logits = Float64Array.from({ length: this.info.vocabSize }, () => random.nextFloat() * 8 - 4);
    if (wished !== undefined) logits[wished] += wish;
    return logits;
  }
}

function hashOf(ids: readonly number[]): number {
  let hash = 2166136261;
  for (const id of ids) hash = Math.imul(hash ^ (id + 1), 16777619) >>> 0;
  return hash;
}

function logSumExp(logits: Float64Array): number {
  const largest = logits.reduce((most, logit) => Math.max(most, logit), -Infinity);
  return largest + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0));
}

function draw(logits: Float64Array, temperature: number, random: RandomStream): number {
  if (temperature === 0)
    return logits.reduce((best, logit, token) => (logit > logits[best] ? token : best), 0);
  const scaled = logits.map((logit) => logit / temperature);
  const normaliser = logSumExp(scaled);
  let rest = random.nextFloat();
  for (const [token, logit] of scaled.entries()) {
    rest -= Math.exp(logit - normaliser);
    if (rest < 0) return token;
  }
  return logits.length - 1;
}
