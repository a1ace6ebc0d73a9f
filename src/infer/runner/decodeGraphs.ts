/** Captured decode steps, one per batch size: rows beyond the sequences that are there stand for nothing. */
import type { CapturedGraph, Context, Tensor } from "../../tensor/index.ts";
import { StepInputs } from "./stepInputs.ts";

/** Rows of a batch of `count` sequences that a graph exists for. */
export function batchBucket(count: number): number {
  if (count <= 2) return count;
  if (count <= 16) return Math.ceil(count / 4) * 4;
  return Math.ceil(count / 16) * 16;
}

/** What a graph computes: a token drawn in each row, or only the logits, for draws that are not all alike. */
export type DecodeGraphKind = "draw" | "logits";

export interface DecodeGraph {
  inputs: StepInputs;
  graph: CapturedGraph;
  /** f32 (B, V) of kind "logits". */
  logits: Tensor | undefined;
}

export interface DecodeGraphsOptions {
  blockSize: number;
  maxBlocksPerSequence: number;
  /** Queues a step on `inputs`; gives the logits where the kind is "logits". */
  record: (inputs: StepInputs, kind: DecodeGraphKind) => Tensor | undefined;
  /** Runs a step whose results nobody wants. */
  warmUp: (run: () => void) => void;
}

export class DecodeGraphs implements Disposable {
  readonly #context: Context;
  readonly #options: DecodeGraphsOptions;
  readonly #graphs = new Map<string, DecodeGraph>();

  constructor(context: Context, options: DecodeGraphsOptions) {
    this.#context = context;
    this.#options = options;
  }

  /** The graph for `numSequences` rows or a few more, captured at the first call. */
  get(kind: DecodeGraphKind, numSequences: number): DecodeGraph {
    const bucket = batchBucket(numSequences);
    const key = `${kind} ${bucket}`;
    const existing = this.#graphs.get(key);
    if (existing !== undefined) return existing;
    const { blockSize, maxBlocksPerSequence, record, warmUp } = this.#options;
    const context = this.#context;
    const inputs = new StepInputs(context, {
      numRows: bucket,
      numSequences: bucket,
      numDraws: bucket,
      maxQueryLength: 1,
      isDecode: true,
      blockSize,
      maxBlocksPerSequence,
    });
    // Once for real: libraries choose their kernels at the first call, which a capture may not.
    inputs.fill(context, []);
    // This size will come again and again: now is the time to find out how it is best done.
    context.withTuning("all", () => warmUp(() => context.scope(() => void record(inputs, kind))));
    const { graph, result: logits } = context.capture(() => record(inputs, kind));
    const captured = { inputs, graph, logits };
    this.#graphs.set(key, captured);
    return captured;
  }

  dispose(): void {
    for (const { inputs, graph, logits } of this.#graphs.values()) {
      logits?.dispose();
      graph.dispose();
      inputs.dispose();
    }
    this.#graphs.clear();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
