/**
 * A `LanguageModel` over a decoder in this process, without a server: whole sequences in padded batches of similar length. Requests
 * that differ in their last token alone (the letters of a question) share one sequence, as in the reference harness.
 */
import { invariant } from "../../../base/index.ts";
import { embedding } from "../../../tensor/index.ts";
import type { Context } from "../../../tensor/index.ts";
import { generateText, parseSampling } from "../../../infer/index.ts";
import { encodePair, prefixTokenOf } from "../../../text/index.ts";
import type {
  GenerateRequest,
  GenerationEvent,
  LanguageModel,
  Loglikelihood,
  LoglikelihoodRequest,
  Prompt,
  RequestOptions,
  RollingLoglikelihood,
  Tokenizer,
} from "../../../text/index.ts";
import { endTokens } from "../openModel.ts";
import type { OpenModel } from "../openModel.ts";
import { runnerFor } from "../generate.ts";
import { rollingWindows } from "./windows.ts";

/** What one sequence scores: the tokens after its last `numScored` positions. */
interface Scored {
  /** What is read: context and continuation without its last token, cut on the left to the model's length. */
  input: Int32Array;
  /** Continuations of this input; all end at its end and differ in their last token, or one is a tail of the other. */
  targets: { place: number; continuation: Int32Array }[];
}

export interface ModelStatistics {
  /** Tokens that requests hold, and tokens that the model read for them. */
  numRequestTokens: number;
  numReadTokens: number;
}

export class DecoderModel implements LanguageModel {
  readonly name: string;
  readonly tokenizer: Tokenizer;
  readonly maxSequenceTokens: number;
  readonly statistics: ModelStatistics = { numRequestTokens: 0, numReadTokens: 0 };
  readonly #context: Context;
  readonly #model: OpenModel;
  readonly #batchTokens: number;

  constructor(context: Context, model: OpenModel, batchTokens = 4096) {
    this.#context = context;
    this.#model = model;
    this.#batchTokens = batchTokens;
    this.name = model.folder;
    this.tokenizer = model.tokenizer;
    this.maxSequenceTokens = model.decoder.config.maxPositions;
  }

  async loglikelihood(
    requests: readonly LoglikelihoodRequest[],
    options: RequestOptions = {},
  ): Promise<Loglikelihood[]> {
    const pairs = requests.map(({ context, continuation }) =>
      encodePair(this.tokenizer, context, continuation),
    );
    return await this.#score(pairs, options);
  }

  async loglikelihoodRolling(
    texts: readonly Prompt[],
    options: RequestOptions = {},
  ): Promise<RollingLoglikelihood[]> {
    const prefix = prefixTokenOf(this.tokenizer);
    const windows = texts.map((text) => {
      const ids = typeof text === "string" ? this.tokenizer.encode(text) : text;
      return rollingWindows(ids, { prefix, maxTokens: this.maxSequenceTokens });
    });
    const scores = await this.#score(windows.flat(), options);
    let at = 0;
    return windows.map((own) => {
      const parts = scores.slice(at, at + own.length);
      at += own.length;
      return {
        logprob: parts.reduce((sum, { logprob }) => sum + logprob, 0),
        numTokens: parts.reduce((sum, { numTokens }) => sum + numTokens, 0),
      };
    });
  }

  async #score(
    pairs: readonly { context: Int32Array; continuation: Int32Array }[],
    { signal, onProgress }: RequestOptions,
  ): Promise<Loglikelihood[]> {
    const results: Loglikelihood[] = pairs.map(() => ({ logprob: 0, isGreedy: false, numTokens: 0 }));
    const sequences = this.#sequencesOf(pairs);
    // Longest first: what does not fit in memory fails at once, and padding stays short.
    sequences.sort((a, b) => b.input.length - a.input.length);
    let numDone = 0;
    for (let begin = 0; begin < sequences.length;) {
      if (signal?.aborted === true) break;
      const { length } = sequences[begin].input;
      const count = Math.max(1, Math.floor(this.#batchTokens / length));
      const batch = sequences.slice(begin, begin + count);
      this.#scoreBatch(batch, results);
      begin += batch.length;
      numDone += batch.reduce((sum, { targets }) => sum + targets.length, 0);
      onProgress?.(numDone, pairs.length);
      await new Promise((resolve) => setImmediate(resolve));
    }
    return results;
  }

  #sequencesOf(pairs: readonly { context: Int32Array; continuation: Int32Array }[]): Scored[] {
    const sequences = new Map<string, Scored>();
    for (const [place, { context, continuation }] of pairs.entries()) {
      const whole = Int32Array.from([...context, ...continuation]).slice(-(this.maxSequenceTokens + 1));
      const input = whole.slice(0, -1);
      const key = input.join(",");
      const target = { place, continuation };
      const same = sequences.get(key);
      this.statistics.numRequestTokens += input.length;
      if (same === undefined) sequences.set(key, { input, targets: [target] });
      else same.targets.push(target);
    }
    return [...sequences.values()];
  }

  #scoreBatch(batch: readonly Scored[], results: Loglikelihood[]): void {
    const context = this.#context;
    const { decoder } = this.#model;
    const length = Math.max(...batch.map(({ input }) => input.length));
    const tokens = new Int32Array(batch.length * length);
    for (const [index, { input }] of batch.entries()) {
      tokens.set(input, index * length);
      this.statistics.numReadTokens += input.length;
    }
    // The rows whose next token is scored.
    const firstRows = batch.map(
      ({ input, targets }) =>
        input.length - Math.max(...targets.map(({ continuation }) => continuation.length)),
    );
    const rows = batch.flatMap(({ input }, index) =>
      Array.from(
        { length: input.length - firstRows[index] },
        (_, row) => index * length + firstRows[index] + row,
      ),
    );
    invariant(
      firstRows.every((row) => row >= 0),
      "a continuation fits behind some context",
    );
    const { vocabSize } = this.tokenizer;
    const logits = context.scope(() => {
      const upload = (values: ArrayLike<number>) => context.tensor(values, [values.length], "i32");
      const positions = upload(tokens.map((_, row) => row % length));
      const hidden = decoder.forward(context, {
        tokens: upload(tokens),
        positions,
        numSequences: batch.length,
        sequenceLength: length,
      });
      return decoder.logits(context, embedding(context, upload(rows), hidden), vocabSize).toArray();
    });
    let row = 0;
    for (const [index, { input, targets }] of batch.entries()) {
      const numRows = input.length - firstRows[index];
      const own = Array.from({ length: numRows }, (_, at) =>
        summarise(logits, (row + at) * vocabSize, vocabSize),
      );
      for (const { place, continuation } of targets)
        results[place] = likelihoodOf(
          continuation,
          own.slice(numRows - continuation.length),
          (at, id) => logits[(row + numRows - continuation.length + at) * vocabSize + id],
        );
      row += numRows;
    }
  }

  async *generate(
    requests: readonly GenerateRequest[],
    { signal, onProgress }: RequestOptions = {},
  ): AsyncGenerator<GenerationEvent> {
    const numAtOnce = 16;
    for (let begin = 0; begin < requests.length; begin += numAtOnce) {
      if (signal?.aborted === true) return;
      yield* this.#generateSome(requests.slice(begin, begin + numAtOnce), begin);
      onProgress?.(Math.min(requests.length, begin + numAtOnce), requests.length);
    }
  }

  async *#generateSome(requests: readonly GenerateRequest[], begin: number): AsyncGenerator<GenerationEvent> {
    const texts = requests.map(({ prompt, maxNewTokens, sampling, stop }) => ({
      prompt: this.#fitting(prompt, maxNewTokens),
      sampling: parseSampling({
        temperature: 0,
        ...sampling,
        maxTokens: maxNewTokens,
        stop: [...(stop ?? [])],
      }),
    }));
    using runner = runnerFor(this.#context, this.#model, texts);
    const numNew = requests.map(() => 0);
    const events = generateText(runner, this.tokenizer, {
      requests: texts,
      endTokens: endTokens(this.#model.folder, this.tokenizer),
    });
    for await (const { request, text, token, logprob, finishReason } of events) {
      numNew[request]++;
      const index = begin + request;
      yield { type: "token", index, id: token, text, logprob };
      if (finishReason === undefined) continue;
      yield {
        type: "end",
        index,
        reason: finishReason === "end" ? "eos" : finishReason,
        text: "",
        numPromptTokens: this.tokenizer.encode(texts[request].prompt).length,
        numNewTokens: numNew[request],
      };
    }
  }

  /** The last part of a prompt that leaves room for the answer. */
  #fitting(prompt: Prompt, maxNewTokens: number): string {
    const ids = typeof prompt === "string" ? this.tokenizer.encode(prompt) : prompt;
    const room = Math.max(1, this.maxSequenceTokens - maxNewTokens);
    if (ids.length <= room && typeof prompt === "string") return prompt;
    return this.tokenizer.decode(ids.slice(-room));
  }
}

interface Row {
  logSum: number;
  best: number;
}

/** Of one row of logits the logarithm of the sum of exponentials, in f64, and the place of the highest. */
function summarise(logits: ArrayLike<number>, begin: number, count: number): Row {
  let best = 0;
  for (let id = 1; id < count; id++) if (logits[begin + id] > logits[begin + best]) best = id;
  const highest = logits[begin + best];
  let sum = 0;
  for (let id = 0; id < count; id++) sum += Math.exp(logits[begin + id] - highest);
  return { logSum: highest + Math.log(sum), best };
}

function likelihoodOf(
  continuation: Int32Array,
  rows: readonly Row[],
  logit: (at: number, id: number) => number,
): Loglikelihood {
  let logprob = 0;
  let isGreedy = true;
  for (const [at, id] of continuation.entries()) {
    logprob += logit(at, id) - rows[at].logSum;
    isGreedy &&= rows[at].best === id;
  }
  return { logprob, isGreedy, numTokens: continuation.length };
}
