/**
 * One optimizer step: micro-batches forward and backward with accumulating gradients, then the update. Everything is only
 * queued; loss and norm come back through readbacks, so that a GPU works on while the host prepares the next step.
 */
import { invariant } from "../base/index.ts";
import type { Adapter, Decoder, SequenceBatch } from "../models/index.ts";
import { rowIndex, Storage, Tape, Tensor } from "../tensor/index.ts";
import type { Context, PendingValues, RecomputePolicy, RowIndex } from "../tensor/index.ts";
import type { AdamW } from "./optimizer.ts";
import type { PreferenceRows } from "./tuning/rows.ts";

/** Sequences as the data side hands them over, a token in each of N rows: N = numSequences * sequenceLength, or packed by cuSeqLens. */
export interface HostBatch {
  tokens: Int32Array;
  /** Of each row, the token after it; `ignoreIndex` where it counts for nothing. */
  targets: Int32Array;
  numSequences: number;
  sequenceLength: number;
  /** Restarting positions; counted from 0 in each sequence where absent. */
  positions?: Int32Array | undefined;
  cuSeqLens?: Int32Array | undefined;
  /** Where sequences share rows: the row of each of their tokens, sequence after sequence as `cuSeqLens` counts them. */
  rowOfToken?: Int32Array | undefined;
  /** Tokens of its texts, without padding; one for each row where absent. */
  numTokens?: number | undefined;
  /** Which rows are compared with which, in batches of preferences. */
  preference?: PreferenceRows | undefined;
  /** The same texts without virtual tokens, as the base reads them; absent where there are none. */
  base?: HostBatch | undefined;
}

export const ignoreIndex = -100;

export interface StepOptions {
  /** From 1. */
  step: number;
  learningRate: number;
  seed: number;
  skipAboveNorm: number;
}

export interface StepResult {
  /** Mean over the counted targets, natural log. */
  loss: number;
  numTargets: number;
  /** Global norm of the gradients before clipping. */
  gradientNorm: number;
}

export interface PendingStep {
  /** Whether the device is done with it. */
  readonly isReady: boolean;
  /** Waits for the device. */
  wait(): StepResult;
}

/** What makes an optimizer step of micro-batches: one for each kind of objective. */
export interface StepRunner extends Disposable {
  run(microBatches: readonly HostBatch[], options: StepOptions): PendingStep;
}

export class TrainingStep implements StepRunner {
  readonly #context: Context;
  readonly #decoder: Decoder;
  readonly #optimizer: AdamW;
  readonly #adapter: Adapter | undefined;
  readonly #recompute: RecomputePolicy;
  readonly #chunkBytes: number | undefined;
  readonly #lossSum: Tensor;

  constructor(
    context: Context,
    {
      decoder,
      optimizer,
      adapter,
      recompute,
      chunkBytes,
    }: {
      decoder: Decoder;
      optimizer: AdamW;
      /** Whose dropout takes its random bits from the step's seed. */
      adapter?: Adapter | undefined;
      recompute: RecomputePolicy;
      chunkBytes?: number | undefined;
    },
  ) {
    this.#adapter = adapter;
    this.#context = context;
    this.#decoder = decoder;
    this.#optimizer = optimizer;
    this.#recompute = recompute;
    this.#chunkBytes = chunkBytes;
    this.#lossSum = new Tensor(new Storage(context.device.allocate(8)), { shape: [1], dtype: "f64" });
  }

  /** Queues the whole step over its micro-batches. */
  run(microBatches: readonly HostBatch[], options: StepOptions): PendingStep {
    const context = this.#context;
    const numTargets = microBatches.reduce((total, batch) => total + countTargets(batch.targets), 0);
    context.device.run("fill", { y: this.#lossSum, numElements: 1, value: 0 });
    for (const [microBatch, batch] of microBatches.entries()) {
      if (this.#adapter !== undefined)
        this.#adapter.dropoutBits = { seed: options.seed * 2 ** 24 + options.step, microBatch };
      this.#accumulate(batch, numTargets);
    }
    if (this.#adapter !== undefined) this.#adapter.dropoutBits = undefined;
    this.#optimizer.step(context, options);
    const loss = this.#lossSum.readback();
    const norm = this.#optimizer.norm.readback();
    return {
      get isReady() {
        return loss.isReady && norm.isReady;
      },
      wait: () => stepResult(loss, norm, numTargets),
    };
  }

  #accumulate(batch: HostBatch, numTargets: number): void {
    const context = this.#context;
    using tape = new Tape(this.#recompute);
    context.scope(() => {
      const { sequences, ...targets } = uploadBatch(context, batch);
      context.withTape(tape, () => {
        const losses = this.#decoder.loss(context, sequences, {
          ...targets,
          ignoreIndex,
          gradientScale: 1 / Math.max(1, numTargets),
          ...(this.#chunkBytes === undefined ? {} : { chunkBytes: this.#chunkBytes }),
        });
        context.device.run("sum", { x: losses, accumulator: this.#lossSum, numElements: losses.numElements });
      });
      tape.backward(context);
    });
  }

  dispose(): void {
    this.#lossSum.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function stepResult(loss: PendingValues, norm: PendingValues, numTargets: number): StepResult {
  return { loss: loss.wait()[0] / Math.max(1, numTargets), numTargets, gradientNorm: norm.wait()[0] };
}

export function countTargets(targets: Int32Array): number {
  let count = 0;
  for (const target of targets) if (target !== ignoreIndex) count++;
  return count;
}

/** Rows of the head are a multiple of this, which products on a GPU like. */
const headRowStep = 16;

/**
 * Rows that the head is run for, ascending: those with a target, and the first without one as often as it takes to fill up. Undefined where
 * that would leave none out.
 */
export function targetRowsOf(targets: Int32Array): Int32Array | undefined {
  const numRows = Math.ceil(Math.max(1, countTargets(targets)) / headRowStep) * headRowStep;
  if (numRows >= targets.length) return undefined;
  const rows = new Int32Array(numRows).fill(targets.indexOf(ignoreIndex));
  let count = 0;
  for (const [row, target] of targets.entries()) if (target !== ignoreIndex) rows[count++] = row;
  return rows.sort();
}

/** A batch on the device. */
export interface UploadedBatch {
  sequences: SequenceBatch;
  /** i32: of `targetRows`, or of every row. */
  targets: Tensor;
  /** `targetRowsOf` the batch's targets. */
  targetRows: RowIndex | undefined;
}

/** Queues the copies of a batch; the tensors belong to the innermost scope. */
export function uploadBatch(
  context: Context,
  batch: HostBatch,
  headRows: Int32Array | undefined = targetRowsOf(batch.targets),
): UploadedBatch {
  const { tokens, targets, numSequences, sequenceLength, cuSeqLens, rowOfToken } = batch;
  const numRows = tokens.length;
  invariant(numRows === targets.length, "one target per row");
  const positions = batch.positions ?? countedPositions(numRows, sequenceLength);
  const upload = (values: Int32Array): Tensor =>
    context
      .empty([values.length], "i32")
      .setBytes(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  return {
    sequences: {
      tokens: upload(tokens),
      positions: upload(positions),
      numSequences,
      sequenceLength,
      cuSeqLens: cuSeqLens && upload(cuSeqLens),
      sharing: rowOfToken && {
        tokens: rowIndex(context, rowOfToken, numRows),
        rows: rowIndex(context, firstTokens(rowOfToken, numRows), rowOfToken.length),
        positions: upload(rowOfToken.map((row) => positions[row])),
      },
    },
    targets: upload(headRows?.map((row) => targets[row]) ?? targets),
    targetRows: headRows && rowIndex(context, headRows, numRows),
  };
}

/** For each row, the first token that it stands for. */
function firstTokens(rowOfToken: Int32Array, numRows: number): Int32Array {
  const first = new Int32Array(numRows);
  for (let token = rowOfToken.length - 1; token >= 0; token--) first[rowOfToken[token]] = token;
  return first;
}

function countedPositions(length: number, sequenceLength: number): Int32Array {
  return Int32Array.from({ length }, (_, row) => row % sequenceLength);
}
