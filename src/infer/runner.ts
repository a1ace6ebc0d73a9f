/**
 * Runs a decoder over a paged cache on token ids: prompts in eager steps, then decode steps, each one replay of a captured
 * graph per batch size. It knows no text and no requests.
 *
 * A decode step takes its tokens from the device memory that the step before sampled into, so that the next step can be queued
 * before the host has seen the last one's tokens.
 */
import { dtypeBytes, invariant } from "../base/index.ts";
import type { Decoder } from "../models/index.ts";
import { embedding, Storage, Tensor } from "../tensor/index.ts";
import type { CapturedGraph, Context, PagedLayerCache, PendingValues } from "../tensor/index.ts";
import { BlockAllocator } from "./blocks.ts";
import { hasPenalties } from "./sampling.ts";
import { StepInputs } from "./stepInputs.ts";
import type { RunnerSequence } from "./stepInputs.ts";

export interface RunnerOptions {
  blockSize: number;
  numBlocks: number;
  /** Longest context of a sequence. */
  maxContext: number;
  /** Rows of one prompt step. */
  maxPromptRows: number;
  /** Tokens that may be drawn: the tokenizer's, where the model's vocabulary is padded beyond them. */
  numTokens?: number;
}

export interface DrawnTokens {
  tokens: ArrayLike<number>;
  /** Natural log of each token's probability under the unscaled logits. */
  logprobs: ArrayLike<number>;
}

/** A step that is under way. */
export interface PendingTokens {
  wait(): DrawnTokens;
}

/** One captured batch size. */
interface DecodeGraph {
  inputs: StepInputs;
  graph: CapturedGraph;
  logprobs: Tensor;
}

/** Rows of a batch of `count` sequences that a graph exists for. */
export function batchBucket(count: number): number {
  if (count <= 2) return count;
  if (count <= 16) return Math.ceil(count / 4) * 4;
  return Math.ceil(count / 16) * 16;
}

export class ModelRunner implements Disposable {
  readonly blocks: BlockAllocator;
  readonly options: RunnerOptions;
  readonly #context: Context;
  readonly #decoder: Decoder;
  readonly #caches: readonly PagedLayerCache[];
  readonly #graphs = new Map<number, DecodeGraph>();

  /** Allocates the cache. Throws OutOfMemoryError. */
  constructor(context: Context, decoder: Decoder, options: RunnerOptions) {
    this.#context = context;
    this.#decoder = decoder;
    this.options = options;
    this.blocks = new BlockAllocator(options.numBlocks);
    const { numKvHeads, headDim, numLayers } = decoder.config;
    const shape = [options.numBlocks * options.blockSize, numKvHeads, headDim];
    const half = (): Tensor => {
      const byteLength = shape[0] * numKvHeads * headDim * dtypeBytes(decoder.dtype);
      return new Tensor(new Storage(context.device.allocate(byteLength)), { shape, dtype: decoder.dtype });
    };
    this.#caches = Array.from({ length: numLayers }, () => ({ keys: half(), values: half() }));
    for (const { keys, values } of this.#caches) {
      // Rows of a batch that stand for nothing read here: they must find numbers.
      for (const y of [keys, values]) context.device.run("fill", { y, numElements: y.numElements, value: 0 });
    }
  }

  /** Blocks that hold `numTokens`. */
  blocksFor(numTokens: number): number {
    return Math.ceil(numTokens / this.options.blockSize);
  }

  get #maxBlocksPerSequence(): number {
    return this.blocksFor(this.options.maxContext);
  }

  /** Reads `prompts` into the cache and draws each sequence's first token. Long prompts go in pieces. */
  prompt(rows: readonly { sequence: RunnerSequence; tokens: readonly number[] }[]): DrawnTokens {
    const drawn = { tokens: new Int32Array(rows.length), logprobs: new Float64Array(rows.length) };
    for (const [index, { sequence, tokens }] of rows.entries()) {
      const { maxPromptRows } = this.options;
      for (let begin = 0; begin < tokens.length; begin += maxPromptRows) {
        const piece = tokens.slice(begin, begin + maxPromptRows);
        const isLast = begin + piece.length === tokens.length;
        const result = this.#promptStep(sequence, piece, { history: isLast ? tokens : undefined });
        if (result === undefined) continue;
        drawn.tokens[index] = result.tokens[0];
        drawn.logprobs[index] = result.logprobs[0];
      }
    }
    return drawn;
  }

  #promptStep(
    sequence: RunnerSequence,
    piece: readonly number[],
    { history }: { history: readonly number[] | undefined },
  ): DrawnTokens | undefined {
    const context = this.#context;
    const { blockSize } = this.options;
    using inputs = new StepInputs(context, {
      numRows: piece.length,
      numSequences: 1,
      maxQueryLength: piece.length,
      blockSize,
      maxBlocksPerSequence: this.#maxBlocksPerSequence,
    });
    inputs.fill(context, [{ sequence, numRows: piece.length }], piece);
    const result = context.scope(() => {
      const hidden = this.#decoder.step(context, inputs.tokens, {
        batch: inputs.batch,
        caches: this.#caches,
      });
      if (history === undefined) return undefined;
      const logits = this.#logits(embedding(context, inputs.lastRows, hidden));
      this.#penalise(logits, [sequence], [history]);
      const tokens = context.empty([1], "i32");
      const logprobs = this.#draw(logits, inputs, tokens);
      return pendingTokens(tokens, logprobs, 1).wait();
    });
    sequence.numCached += piece.length;
    if (result !== undefined) sequence.numDrawn++;
    return result;
  }

  /**
   * Queues one more token for each sequence. `tokens` are those drawn last, or undefined when they are the ones that the decode step
   * just before, over the very same sequences, left on the device. `histories` are needed by sequences with penalties.
   */
  decode(
    sequences: readonly RunnerSequence[],
    {
      tokens,
      histories,
    }: { tokens?: readonly number[] | undefined; histories?: readonly (readonly number[])[] | undefined },
  ): PendingTokens {
    const context = this.#context;
    const hasHistory = sequences.some(({ sampling }) => hasPenalties(sampling));
    const { inputs, graph, logprobs } = this.#graphFor(batchBucket(sequences.length));
    inputs.fill(
      context,
      sequences.map((sequence) => ({ sequence, numRows: 1 })),
      tokens,
    );
    for (const sequence of sequences) {
      sequence.numCached++;
      sequence.numDrawn++;
    }
    if (!hasHistory) {
      graph.replay();
      return pendingTokens(inputs.tokens, logprobs, sequences.length);
    }
    invariant(histories !== undefined, "penalties need the tokens so far");
    return context.scope(() => {
      const hidden = this.#decoder.step(context, inputs.tokens, {
        batch: inputs.batch,
        caches: this.#caches,
      });
      const logits = this.#logits(hidden);
      this.#penalise(logits, sequences, histories);
      return pendingTokens(inputs.tokens, this.#draw(logits, inputs, inputs.tokens), sequences.length);
    });
  }

  #graphFor(numSequences: number): DecodeGraph {
    const existing = this.#graphs.get(numSequences);
    if (existing !== undefined) return existing;
    const context = this.#context;
    const inputs = new StepInputs(context, {
      numRows: numSequences,
      numSequences,
      maxQueryLength: 1,
      blockSize: this.options.blockSize,
      maxBlocksPerSequence: this.#maxBlocksPerSequence,
    });
    const body = (): Tensor => {
      const hidden = this.#decoder.step(context, inputs.tokens, {
        batch: inputs.batch,
        caches: this.#caches,
      });
      return this.#draw(this.#logits(hidden), inputs, inputs.tokens);
    };
    // Once for real: libraries choose their kernels at the first call, which a capture may not.
    inputs.fill(context, [], new Int32Array(numSequences));
    context.scope(body).dispose();
    const { graph, result: logprobs } = context.capture(body);
    const captured = { inputs, graph, logprobs };
    this.#graphs.set(numSequences, captured);
    return captured;
  }

  #logits(hidden: Tensor): Tensor {
    return this.#decoder.logits(this.#context, hidden, this.options.numTokens);
  }

  #draw(logits: Tensor, inputs: StepInputs, tokens: Tensor): Tensor {
    const numRows = logits.numRows;
    const logprobs = this.#context.empty([numRows], "f32");
    this.#context.device.run("sample", {
      logits,
      ...inputs.sampling,
      tokens,
      logprobs,
      numRows,
      vocabSize: logits.width,
    });
    return logprobs;
  }

  #penalise(
    logits: Tensor,
    sequences: readonly RunnerSequence[],
    histories: readonly (readonly number[])[],
  ): void {
    if (!sequences.some(({ sampling }) => hasPenalties(sampling))) return;
    const context = this.#context;
    const numRows = logits.numRows;
    const maxHistory = Math.max(1, ...histories.map(({ length }) => length));
    const history = new Int32Array(numRows * maxHistory);
    for (const [row, tokens] of histories.entries()) history.set(tokens, row * maxHistory);
    const perRow = (pick: (index: number) => number, missing: number): Float64Array =>
      Float64Array.from({ length: numRows }, (_, row) => (row < sequences.length ? pick(row) : missing));
    context.device.run("applyPenalties", {
      logits,
      history: context.tensor(history, [numRows, maxHistory], "i32"),
      historyLengths: context.tensor(
        perRow((row) => histories[row].length, 0),
        [numRows],
        "i32",
      ),
      repetition: context.tensor(
        perRow((row) => sequences[row].sampling.repetitionPenalty, 1),
        [numRows],
        "f32",
      ),
      presence: context.tensor(
        perRow((row) => sequences[row].sampling.presencePenalty, 0),
        [numRows],
        "f32",
      ),
      frequency: context.tensor(
        perRow((row) => sequences[row].sampling.frequencyPenalty, 0),
        [numRows],
        "f32",
      ),
      numRows,
      vocabSize: logits.width,
      maxHistory,
    });
  }

  dispose(): void {
    for (const { graph, inputs, logprobs } of this.#graphs.values()) {
      logprobs.dispose();
      graph.dispose();
      inputs.dispose();
    }
    for (const { keys, values } of this.#caches) {
      keys.dispose();
      values.dispose();
    }
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function pendingTokens(tokens: Tensor, logprobs: Tensor, count: number): PendingTokens {
  const pending: readonly PendingValues[] = [tokens.readback(), logprobs.readback()];
  return {
    wait: () => {
      const [drawn, logs] = pending.map((values) => values.wait().subarray(0, count));
      return { tokens: drawn, logprobs: logs };
    },
  };
}
