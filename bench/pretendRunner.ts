/**
 * A runner for what surrounds a model: it computes nothing, and its steps take as long as a device that reads a given number of rows a
 * second would, while the host goes on. What the host cannot hide behind them shows as on the device itself. Time is this thread's own
 * processor time and the time it would have waited for the device, so that other work on the machine changes nothing.
 */
import type { PendingStep, RunnerTask, Step, StepPiece, StepResult, StepRunner } from "../src/infer/index.ts";

/** Milliseconds since some moment. */
export class PretendClock {
  #waitedMs = 0;

  now(): number {
    const { user, system } = process.threadCpuUsage();
    return (user + system) / 1000 + this.#waitedMs;
  }

  waitUntil(ms: number): void {
    this.#waitedMs += Math.max(0, ms - this.now());
  }
}

export class PretendRunner implements StepRunner {
  readonly #clock: PretendClock;
  readonly #rowsPerSecond: number;
  #endMs = 0;

  /** Infinity rows a second: steps take no time. */
  constructor(clock: PretendClock, rowsPerSecond: number) {
    this.#clock = clock;
    this.#rowsPerSecond = rowsPerSecond;
  }

  execute({ pieces, numRows }: Step<RunnerTask>): PendingStep {
    const clock = this.#clock;
    const endMs = Math.max(this.#endMs, clock.now()) + (1000 * numRows) / this.#rowsPerSecond;
    this.#endMs = endMs;
    const numDraws = pieces.filter(({ draws }) => draws).length;
    const result: StepResult = {
      tokens: new Int32Array(numDraws),
      logprobs: new Float32Array(numDraws).fill(-1),
      ranked: [],
      outputs: pieces.map(outputOf),
    };
    return {
      get isReady() {
        return clock.now() >= endMs;
      },
      wait: () => {
        clock.waitUntil(endMs);
        return result;
      },
    };
  }

  dispose(): void {}

  [Symbol.dispose](): void {}
}

function outputOf({
  sequence,
  outputBegin,
  outputEnd,
}: StepPiece<RunnerTask>): StepResult["outputs"][number] {
  const { outputs } = sequence.task;
  if (outputBegin === outputEnd || outputs?.kind !== "logprobs") return undefined;
  const ranked = (token: number) => ({ token, logprob: -1, rank: token % 2, mostLikely: [] });
  return {
    kind: "logprobs",
    tokens: sequence.tokens.slice(outputBegin + 1, outputEnd + 1).map(ranked),
    alternatives: outputs.alternatives
      .filter(({ position }) => outputBegin <= position && position < outputEnd)
      .map(({ token }) => ranked(token)),
  };
}
