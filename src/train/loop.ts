/**
 * The training loop: schedules, steps, held-out loss, checkpoints, and what to do when numbers go wrong. It computes and reports;
 * drawing progress is the caller's, through `RunEvents`.
 *
 * One step runs ahead: the results of step s are read after step s + 1 is queued, or before it where they are there already, so that a
 * step's time is its own also on a device that computes while it queues. What depends on results (the spike threshold of step s)
 * uses those of steps up to s - normDelaySteps alone, early or late as they may have been read, so that a resumed run repeats it bit for bit.
 */
import { NautilusError } from "../base/index.ts";
import type { Decoder } from "../models/index.ts";
import type { Context, RecomputePolicy } from "../tensor/index.ts";
import type { AdamW } from "./optimizer.ts";
import { countSteps, learningRateAt, sequencesAt } from "./schedule.ts";
import type { BatchSchedule, LearningRateSchedule } from "./schedule.ts";
import { TrainingStep } from "./step.ts";
import type { HostBatch, PendingStep, StepRunner } from "./step.ts";

/** Where a run stands; all of it is in the checkpoint. */
export interface RunState {
  /** Steps done. */
  step: number;
  tokensSeen: number;
  samplesConsumed: number;
  /** Running mean of the gradient norm. */
  meanNorm: number;
  /** Norms of steps that are done but too young for the mean. */
  recentNorms: { step: number; norm: number }[];
  skippedSteps: number;
  consecutiveSkips: number;
}

export const initialRunState: Readonly<RunState> = {
  step: 0,
  tokensSeen: 0,
  samplesConsumed: 0,
  meanNorm: 0,
  recentNorms: [],
  skippedSteps: 0,
  consecutiveSkips: 0,
};

/** Training sequences by position: the same index always gives the same tokens. */
export interface TrainingData {
  batch(firstSample: number, numSequences: number): HostBatch;
}

export interface LoopOptions {
  schedule: LearningRateSchedule;
  batches: BatchSchedule;
  totalTokens: number;
  sequenceLength: number;
  microBatchSequences: number;
  recompute: RecomputePolicy;
  lossChunkBytes?: number | undefined;
  seed: number;
  spikeFactor: number;
  maxSkippedSteps: number;
  /** 0 for never. */
  evaluateEverySteps: number;
  checkpointEverySteps: number;
}

export interface FinishedStep {
  step: number;
  numSteps: number;
  /** Of the schedule so far, which counts whole rows. */
  tokens: number;
  /** Tokens of this step's texts, without padding. */
  numTokens: number;
  loss: number;
  learningRate: number;
  gradientNorm: number;
  tokensPerSecond: number;
  wasSkipped: boolean;
  skippedSteps: number;
}

export interface RunEvents {
  stepEnd?(step: FinishedStep): void;
  /** Measures held-out loss, every so many steps and after the last; true ends the run early. */
  evaluate?(state: RunState): boolean | void;
  /** Saves everything; the device is idle. */
  checkpoint?(state: RunState): void;
}

export type RunOutcome = "finished" | "stopped";

interface QueuedStep {
  pending: PendingStep;
  step: number;
  tokens: number;
  numTokens: number;
  learningRate: number;
  threshold: number;
}

const normDecay = 0.98;
const normDelaySteps = 3;

export class TrainingRun {
  readonly #makeStep: () => StepRunner;
  readonly #data: TrainingData;
  readonly #options: LoopOptions;
  readonly #events: RunEvents;
  readonly #numSteps: number;
  #state: RunState;
  #lastReadMs = 0;

  constructor(
    context: Context,
    parts: {
      decoder: Decoder;
      optimizer: AdamW;
      data: TrainingData;
      /** Another objective than the next token; the run disposes it. */
      makeStep?: () => StepRunner;
    },
    {
      options,
      events = {},
      state = initialRunState,
    }: { options: LoopOptions; events?: RunEvents; state?: Readonly<RunState> },
  ) {
    const { decoder, optimizer } = parts;
    const { recompute, lossChunkBytes: chunkBytes } = options;
    this.#makeStep =
      parts.makeStep ?? (() => new TrainingStep(context, { decoder, optimizer, recompute, chunkBytes }));
    this.#data = parts.data;
    this.#options = options;
    this.#events = events;
    this.#state = { ...state, recentNorms: [...state.recentNorms] };
    this.#numSteps = countSteps(options.batches, options);
  }

  get state(): Readonly<RunState> {
    return this.#state;
  }

  get numSteps(): number {
    return this.#numSteps;
  }

  /**
   * Trains to the end, or until `signal` is aborted: then the step under way is finished and a checkpoint is saved. Throws
   * NautilusError when too many steps in a row had to be skipped.
   */
  async run(signal?: AbortSignal): Promise<RunOutcome> {
    const options = this.#options;
    using step = this.#makeStep();
    let previous: QueuedStep | undefined;
    this.#lastReadMs = performance.now();
    const isStopped = (): boolean => signal?.aborted === true;
    let hasConverged = false;
    while (this.#state.step < this.#numSteps && !isStopped() && !hasConverged) {
      const queued = this.#queue(step);
      if (previous !== undefined) this.#finish(previous);
      previous = queued;
      const isEvaluation = isDue(options.evaluateEverySteps, queued.step) || queued.step === this.#numSteps;
      const isCheckpoint = isDue(options.checkpointEverySteps, queued.step) && queued.step < this.#numSteps;
      if (isEvaluation || isCheckpoint) {
        this.#finish(previous);
        previous = undefined;
        if (isEvaluation) hasConverged = this.#events.evaluate?.(this.#state) === true;
        if (isCheckpoint) this.#events.checkpoint?.(this.#state);
        this.#lastReadMs = performance.now();
      }
      // Signals and timers run between steps.
      await new Promise((resolve) => setImmediate(resolve));
      if (previous?.pending.isReady === true) {
        this.#finish(previous);
        previous = undefined;
      }
    }
    if (previous !== undefined) this.#finish(previous);
    this.#events.checkpoint?.(this.#state);
    return this.#state.step >= this.#numSteps || hasConverged ? "finished" : "stopped";
  }

  #queue(step: StepRunner): QueuedStep {
    const options = this.#options;
    const state = this.#state;
    const numSequences = sequencesAt(options.batches, state.tokensSeen, options.sequenceLength);
    const scheduledTokens = numSequences * options.sequenceLength;
    const learningRate = learningRateAt(options.schedule, {
      tokensSeen: state.tokensSeen,
      stepTokens: scheduledTokens,
      totalTokens: options.totalTokens,
    });
    const threshold = options.spikeFactor * this.#settledMeanNorm(state.step + 1);
    const microBatches: HostBatch[] = [];
    for (let done = 0; done < numSequences; done += options.microBatchSequences) {
      const size = Math.min(options.microBatchSequences, numSequences - done);
      microBatches.push(this.#data.batch(state.samplesConsumed + done, size));
    }
    const pending = step.run(microBatches, {
      step: state.step + 1,
      learningRate,
      seed: options.seed,
      skipAboveNorm: threshold,
    });
    state.step++;
    state.tokensSeen += scheduledTokens;
    state.samplesConsumed += numSequences;
    const numTokens = microBatches.reduce(
      (total, batch) => total + (batch.numTokens ?? batch.tokens.length),
      0,
    );
    return { pending, step: state.step, tokens: state.tokensSeen, numTokens, learningRate, threshold };
  }

  #finish({ pending, step, tokens, numTokens, learningRate, threshold }: QueuedStep): void {
    const { loss, gradientNorm } = pending.wait();
    const nowMs = performance.now();
    const elapsedMs = nowMs - this.#lastReadMs;
    this.#lastReadMs = nowMs;
    const wasSkipped = !Number.isFinite(gradientNorm) || (threshold > 0 && gradientNorm > threshold);
    const state = this.#state;
    if (wasSkipped) {
      state.skippedSteps++;
      state.consecutiveSkips++;
    } else {
      state.consecutiveSkips = 0;
      state.recentNorms.push({ step, norm: gradientNorm });
    }
    this.#events.stepEnd?.({
      step,
      numSteps: this.#numSteps,
      tokens,
      numTokens,
      loss,
      learningRate,
      gradientNorm,
      tokensPerSecond: (numTokens / Math.max(elapsedMs, 1e-3)) * 1000,
      wasSkipped,
      skippedSteps: state.skippedSteps,
    });
    if (state.consecutiveSkips >= this.#options.maxSkippedSteps) {
      throw new NautilusError(
        "train",
        `expected finite gradients, got ${state.consecutiveSkips} skipped steps in a row (last norm ${gradientNorm})`,
        {
          hint: "lower optim.lr, or look at the data around this step",
        },
      );
    }
  }

  /** The mean that step `step` may know of. */
  #settledMeanNorm(step: number): number {
    const state = this.#state;
    for (
      let oldest = state.recentNorms.at(0);
      oldest !== undefined && oldest.step <= step - normDelaySteps;
      oldest = state.recentNorms.at(0)
    ) {
      state.meanNorm =
        state.meanNorm === 0 ? oldest.norm : normDecay * state.meanNorm + (1 - normDecay) * oldest.norm;
      state.recentNorms.shift();
    }
    return state.meanNorm;
  }
}

function isDue(every: number, step: number): boolean {
  return every > 0 && step % every === 0;
}
