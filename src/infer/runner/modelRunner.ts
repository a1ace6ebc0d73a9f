/**
 * Runs a decoder over a paged cache: mixed steps of prompt pieces and decode rows eagerly, decode steps as one replay of a captured
 * graph per batch size. It knows no text and no requests.
 *
 * A step takes tokens that the host does not know yet from the device memory that the step before drew into, so that it can be
 * queued before the host has seen them.
 */
import type { CacheFormat, Decoder } from "../../models/index.ts";
import { embedding, Storage, Tensor } from "../../tensor/index.ts";
import type { Context, PagedLayerCache } from "../../tensor/index.ts";
import type { Step, StepPiece } from "../scheduler/scheduler.ts";
import { adjustLogits, isAdjusted } from "./adjustments.ts";
import { batchBucket, DecodeGraphs } from "./decodeGraphs.ts";
import type { DecodeGraphKind } from "./decodeGraphs.ts";
import { allocateCaches } from "./layerCaches.ts";
import { queueOutputs } from "./outputs.ts";
import type { QueuedOutputs } from "./outputs.ts";
import { RankedRows } from "./rankedRows.ts";
import { StepInputs } from "./stepInputs.ts";
import type { PendingStep, RankedToken, RunnerTask, StepResult, StepRunner } from "./task.ts";

export interface RunnerOptions {
  blockSize: number;
  numBlocks: number;
  /** What the cache holds keys and values as. Default "auto": the decoder's dtype. */
  kvCache?: CacheFormat | undefined;
  /** Longest context of a sequence. */
  maxContext: number;
  /** Sequences of one step. */
  maxSequences: number;
  /** Tokens that may be drawn: the tokenizer's, where the model's vocabulary is padded beyond them. */
  numTokens?: number | undefined;
  /** Bound on the logits of prompt rows that exist at once. Default 64 MiB. */
  maxLogitsBytes?: number | undefined;
  /** Rows of a full step: the one size of mixed steps that comes again and again. */
  maxStepRows?: number | undefined;
  /** Rows of one step go through different adapters. Default false: through the one that the decoder has, if any. */
  choosesAdapters?: boolean | undefined;
}

type Piece = StepPiece<RunnerTask>;

export class ModelRunner implements StepRunner {
  readonly options: RunnerOptions;
  readonly #context: Context;
  readonly #decoder: Decoder;
  readonly #caches: readonly PagedLayerCache[];
  readonly #graphs: DecodeGraphs;
  readonly #maxDraws: number;
  /** i32 tokens, then f32 log-probabilities, of the last step's draws. */
  readonly #draws: Storage;
  readonly #drawn: Tensor;

  /** Allocates the cache. Throws OutOfMemoryError. */
  constructor(context: Context, decoder: Decoder, options: RunnerOptions) {
    this.#context = context;
    this.#decoder = decoder;
    this.options = options;
    this.#caches = allocateCaches(context, decoder, { ...options, kvCache: options.kvCache ?? "auto" });
    this.#maxDraws = batchBucket(options.maxSequences);
    this.#draws = new Storage(context.device.allocate(2 * 4 * this.#maxDraws));
    this.#drawn = this.#drawField(0, this.#maxDraws, "i32");
    // Places that no draw has reached are read by nobody, but must be tokens.
    context.device.run("fill", { y: this.#drawn, numElements: this.#maxDraws, value: 0 });
    this.#graphs = new DecodeGraphs(context, {
      blockSize: options.blockSize,
      maxBlocksPerSequence: this.#maxBlocksPerSequence,
      record: (inputs, kind) => this.#decodeStep(inputs, kind),
      warmUp: (run) => this.#keepingDraws(run),
    });
  }

  get #maxBlocksPerSequence(): number {
    return Math.ceil(this.options.maxContext / this.options.blockSize);
  }

  #drawField(column: 0 | 1, numDraws: number, dtype: "i32" | "f32"): Tensor {
    const byteOffset = 4 * column * this.#maxDraws;
    return new Tensor(this.#draws.retain(), { shape: [numDraws], dtype, byteOffset });
  }

  execute(step: Step<RunnerTask>): PendingStep {
    return step.isDecode && step.pieces.every(isPlain) ? this.#decode(step.pieces) : this.#mixed(step);
  }

  /**
   * Queues the capture of the graphs for up to `numSequences`, and a full step that is nobody's: no request waits for a capture, or for
   * the device to find out how to do them best.
   */
  warmUp(numSequences: number): void {
    const { maxStepRows } = this.options;
    if (maxStepRows !== undefined) this.#keepingDraws(() => this.#emptyStep(maxStepRows));
    for (let count = 1; count <= numSequences; count = batchBucket(count) + 1)
      this.#graphs.get("draw", count);
  }

  #decode(pieces: readonly Piece[]): PendingStep {
    const isAlike = !pieces.some(
      (piece) => isAdjusted(piece) || piece.sequence.task.numLogprobs !== undefined,
    );
    const { inputs, graph, logits } = this.#graphs.get(isAlike ? "draw" : "logits", pieces.length);
    inputs.fill(this.#context, pieces);
    graph.replay();
    if (logits === undefined) return this.#pending(pieces.length, undefined, undefined);
    return this.#context.scope(() => {
      const ranked = this.#drawAdjusted(logits, inputs, pieces);
      return this.#pending(pieces.length, ranked, undefined);
    });
  }

  #emptyStep(numRows: number): void {
    const context = this.#context;
    const { blockSize } = this.options;
    const counts = { numRows, numSequences: numRows, numDraws: numRows, maxQueryLength: 1 };
    using inputs = new StepInputs(context, { ...counts, blockSize, maxBlocksPerSequence: 1 });
    inputs.fill(context, []);
    context.withTuning("all", () => context.scope(() => void this.#hidden(inputs)));
  }

  /** Sizes of mixed steps hardly come twice: requests are not to wait for timings of them. */
  #mixed(step: Step<RunnerTask>): PendingStep {
    const isFull = step.numRows === this.options.maxStepRows;
    return this.#context.withTuning(isFull ? "repeated" : "none", () => this.#queueMixed(step));
  }

  #queueMixed({ pieces, numRows }: Step<RunnerTask>): PendingStep {
    const context = this.#context;
    const draws = pieces.filter((piece) => piece.draws);
    using inputs = new StepInputs(context, {
      numRows,
      numSequences: pieces.length,
      numDraws: draws.length,
      maxQueryLength: Math.max(...pieces.map((piece) => piece.numRows)),
      blockSize: this.options.blockSize,
      maxBlocksPerSequence: Math.max(...pieces.map(({ sequence }) => sequence.blocks.length)),
      numCopies: pieces.reduce((sum, { copies }) => sum + copies.length, 0),
    });
    inputs.fill(context, pieces);
    return context.scope(() => {
      const hidden = this.#hidden(inputs);
      const outputs = queueOutputs(context, hidden, {
        pieces,
        logits: (rows) => this.#logits(rows),
        maxRows: this.#maxLogitsRows,
      });
      if (draws.length === 0) return this.#pending(0, undefined, outputs);
      const logits = this.#logits(embedding(context, inputs.drawRows, hidden));
      return this.#pending(draws.length, this.#drawAdjusted(logits, inputs, draws), outputs);
    });
  }

  get #maxLogitsRows(): number {
    const { maxLogitsBytes = 64 * 2 ** 20, numTokens = this.#decoder.config.vocabSize } = this.options;
    return Math.max(1, Math.floor(maxLogitsBytes / (4 * numTokens)));
  }

  /** Runs a step that is nobody's: the next one may still take its tokens from the draws of the one before. */
  #keepingDraws(run: () => void): void {
    const { device } = this.#context;
    const { buffer } = this.#draws;
    using kept = device.allocate(buffer.byteLength);
    device.copy(buffer, 0, kept, 0, buffer.byteLength);
    run();
    device.copy(kept, 0, buffer, 0, buffer.byteLength);
  }

  #decodeStep(inputs: StepInputs, kind: DecodeGraphKind): Tensor | undefined {
    const logits = this.#logits(this.#hidden(inputs));
    if (kind === "logits") return logits;
    this.#draw(logits, inputs);
    return undefined;
  }

  /** Hidden states (N, C) of a step. */
  #hidden({ tokens: known, sources, batch, shape, adapterRows }: StepInputs): Tensor {
    const context = this.#context;
    // Not into the step's inputs: what no kernel writes may be read ahead.
    const tokens = context.empty([shape.numRows], "i32");
    context.device.run("gatherTokens", {
      sources,
      drawn: this.#drawn,
      known,
      tokens,
      numRows: shape.numRows,
      numDrawn: this.#maxDraws,
    });
    const rows = this.options.choosesAdapters === true ? { adapterRows } : {};
    return this.#decoder.step(context, tokens, { batch, caches: this.#caches, ...rows });
  }

  #logits(hidden: Tensor): Tensor {
    return this.#decoder.logits(this.#context, hidden, this.options.numTokens);
  }

  #draw(logits: Tensor, inputs: StepInputs): void {
    const numRows = logits.numRows;
    const context = this.#context;
    const tokens = context.adopt(this.#drawField(0, numRows, "i32"));
    const logprobs = context.adopt(this.#drawField(1, numRows, "f32"));
    context.device.run("sample", {
      logits,
      ...inputs.sampling,
      tokens,
      logprobs,
      numRows,
      vocabSize: logits.width,
    });
  }

  /** Draws with what each row asks for; log-probabilities stay those of the model's own logits. */
  #drawAdjusted(logits: Tensor, inputs: StepInputs, draws: readonly Piece[]): QueuedRanks | undefined {
    const context = this.#context;
    const isChanged = draws.some(isAdjusted);
    const chosen = isChanged ? copyOf(context, logits) : logits;
    if (isChanged) adjustLogits(context, chosen, draws);
    this.#draw(chosen, inputs);
    const numTop = Math.max(-1, ...draws.map(({ sequence }) => sequence.task.numLogprobs ?? -1));
    if (!isChanged && numTop < 0) return undefined;
    const rows = new RankedRows(context, { numRows: draws.length, numTop: Math.max(0, numTop) });
    const drawnRows = context.adopt(this.#drawField(0, draws.length, "i32"));
    rows.measure(0, logits, drawnRows);
    rows.read();
    return { rows, wanted: draws.map(wantedRanks) };
  }

  #pending(
    numDraws: number,
    ranks: QueuedRanks | undefined,
    outputs: QueuedOutputs | undefined,
  ): PendingStep {
    const readback =
      numDraws === 0
        ? undefined
        : this.#context.device.readback(this.#draws.buffer, 0, 2 * 4 * this.#maxDraws);
    const maxDraws = this.#maxDraws;
    return {
      get isReady() {
        return (readback?.isReady ?? true) && (outputs?.isReady ?? true) && (ranks?.rows.isReady ?? true);
      },
      wait(): StepResult {
        // Bytes of a readback are only valid until the next one is waited for.
        const bytes = readback?.wait().slice() ?? new Uint8Array(0);
        const tokens = new Int32Array(bytes.buffer, 0, numDraws);
        const logprobs = new Float32Array(bytes.buffer, numDraws === 0 ? 0 : 4 * maxDraws, numDraws);
        const ranked = ranks === undefined ? [] : readRanks(ranks, tokens, logprobs);
        return { tokens, logprobs, ranked, outputs: outputs?.wait() ?? [] };
      },
    };
  }

  dispose(): void {
    this.#graphs.dispose();
    this.#drawn.dispose();
    this.#draws.release();
    for (const { keys, values, keyScales, valueScales } of this.#caches)
      for (const tensor of [keys, values, keyScales, valueScales]) tensor?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** What of the measured rows goes where. */
interface WantedRanks {
  /** The drawn token's log-probability is not the sampler's. */
  replaces: boolean;
  numMostLikely: number | undefined;
}

interface QueuedRanks {
  rows: RankedRows;
  wanted: readonly WantedRanks[];
}

function wantedRanks(piece: Piece): WantedRanks {
  return { replaces: isAdjusted(piece), numMostLikely: piece.sequence.task.numLogprobs };
}

function readRanks(
  { rows, wanted }: QueuedRanks,
  tokens: Int32Array,
  logprobs: Float32Array,
): (RankedToken | undefined)[] {
  const rankedRow = rows.wait();
  rows.dispose();
  return wanted.map(({ replaces, numMostLikely }, row) => {
    if (!replaces && numMostLikely === undefined) return undefined;
    const ranked = rankedRow(row, tokens[row], numMostLikely ?? 0);
    if (replaces) logprobs[row] = ranked.logprob;
    return numMostLikely === undefined ? undefined : ranked;
  });
}

/** A row that draws, for which nothing is copied and from which nothing else is wanted: what decode graphs do. */
function isPlain({ draws, numRows, outputBegin, outputEnd, copies }: Piece): boolean {
  return draws && numRows === 1 && outputBegin === outputEnd && copies.length === 0;
}

function copyOf(context: Context, logits: Tensor): Tensor {
  const copy = context.empty(logits.shape, logits.dtype);
  context.device.copy(logits.buffer, logits.byteOffset, copy.buffer, copy.byteOffset, logits.byteLength);
  return copy;
}
