/** A training run as it looks on a terminal: one line that moves, and lines that stay for held-out loss and checkpoints. */
import { formatCount, formatDuration } from "../../base/index.ts";
import type { EvaluationResult, FinishedStep } from "../../train/index.ts";
import { bar, ProgressLine } from "./progress.ts";

const lossSmoothing = 0.9;

export class TrainingProgress {
  readonly #line: ProgressLine;
  readonly #isJson: boolean;
  #smoothedLoss: number | undefined;
  #smoothedStepSeconds: number | undefined;
  #smoothedStepTokens: number | undefined;
  #lastPlainMs = -Infinity;

  constructor({ isJson }: { isJson: boolean }) {
    this.#line = new ProgressLine();
    this.#isJson = isJson;
  }

  step(step: FinishedStep): void {
    if (this.#isJson) {
      process.stdout.write(`${JSON.stringify({ kind: "train", ...step })}\n`);
      return;
    }
    if (step.wasSkipped) {
      this.#line.print(
        `step ${step.step}: skipped, gradient norm ${step.gradientNorm} (${step.skippedSteps} so far)`,
      );
      return;
    }
    const seconds = step.numTokens / step.tokensPerSecond;
    this.#smoothedLoss = blend(this.#smoothedLoss, step.loss);
    this.#smoothedStepSeconds = blend(this.#smoothedStepSeconds, seconds);
    this.#smoothedStepTokens = blend(this.#smoothedStepTokens, step.numTokens);
    const left = formatDuration((step.numSteps - step.step) * this.#smoothedStepSeconds);
    const rate = this.#smoothedStepTokens / this.#smoothedStepSeconds;
    const share = step.step / step.numSteps;
    const text =
      `step ${step.step}/${step.numSteps} ${bar(share)} loss ${this.#smoothedLoss.toFixed(3)}` +
      `  ${formatCount(rate)} tok/s  ${left} left`;
    const nowMs = performance.now();
    if (!process.stderr.isTTY && share < 1 && nowMs - this.#lastPlainMs < 10_000) return;
    this.#lastPlainMs = nowMs;
    this.#line.status(text);
  }

  evaluation(
    result: EvaluationResult,
    { name, step, bitsPerByte }: { name: string; step: number; bitsPerByte: number | undefined },
  ): void {
    if (this.#isJson)
      process.stdout.write(`${JSON.stringify({ kind: "validation", name, step, ...result, bitsPerByte })}\n`);
    else {
      const bits = bitsPerByte === undefined ? "" : `, ${bitsPerByte.toFixed(3)} bits per byte`;
      this.#line.print(`step ${step}: ${name} loss ${result.loss.toFixed(4)}${bits}`);
    }
  }

  checkpoint(path: string): void {
    if (!this.#isJson) this.#line.print(`saved ${path}`);
  }

  finish(): void {
    this.#line.finish();
  }
}

function blend(mean: number | undefined, value: number): number {
  return mean === undefined || !Number.isFinite(mean)
    ? value
    : lossSmoothing * mean + (1 - lossSmoothing) * value;
}
