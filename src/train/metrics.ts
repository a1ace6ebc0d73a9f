/**
 * Metrics of a run: one JSON object a line in metrics.jsonl, and TensorBoard event files beside it. After a resume, lines of
 * steps that will be run again are dropped first, so that the file reads as one uninterrupted run.
 */
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileError, makeFolder, withFileErrors, writeAll, writeText } from "../base/index.ts";
import { TensorBoardWriter } from "./tensorboard.ts";

export interface StepMetrics {
  kind: "train";
  step: number;
  tokens: number;
  loss: number;
  learningRate: number;
  gradientNorm: number;
  tokensPerSecond: number;
  skippedSteps: number;
}

export interface EvaluationMetrics {
  kind: "validation";
  /** Which held-out set. */
  name: string;
  step: number;
  tokens: number;
  loss: number;
  bitsPerByte?: number | undefined;
}

export type Metrics = StepMetrics | EvaluationMetrics;

export class MetricsWriter implements Disposable {
  readonly #path: string;
  readonly #descriptor: number;
  readonly #tensorboard: TensorBoardWriter | undefined;

  constructor(folder: string, { resumeStep, tensorboard }: { resumeStep: number; tensorboard: boolean }) {
    makeFolder("metrics", folder);
    this.#path = join(folder, "metrics.jsonl");
    dropLaterLines(this.#path, resumeStep);
    this.#descriptor = withFileErrors("metrics", "a writable file", this.#path, () =>
      openSync(this.#path, "a"),
    );
    this.#tensorboard = tensorboard
      ? new TensorBoardWriter(join(folder, "tensorboard"), Date.now())
      : undefined;
  }

  /** The line of a training step; what else a finished step knows stays out of it. */
  writeStep(finished: Omit<StepMetrics, "kind">): void {
    const { step, tokens, loss, learningRate, gradientNorm, tokensPerSecond, skippedSteps } = finished;
    this.write({
      kind: "train",
      step,
      tokens,
      loss,
      learningRate,
      gradientNorm,
      tokensPerSecond,
      skippedSteps,
    });
  }

  write(metrics: Metrics): void {
    withFileErrors("metrics", "a writable file", this.#path, () => {
      writeAll(this.#descriptor, Buffer.from(`${JSON.stringify(metrics)}\n`));
    });
    if (this.#tensorboard === undefined) return;
    const { kind, step, tokens: _, ...values } = metrics;
    for (const [name, value] of Object.entries(values)) {
      if (typeof value === "number")
        this.#tensorboard.scalar(`${kind}/${name}`, value, { step, wallTimeMs: Date.now() });
    }
  }

  dispose(): void {
    closeSync(this.#descriptor);
    this.#tensorboard?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Every complete line of a metrics file; a line cut short by a crash is left out. */
export function readMetrics(path: string): Metrics[] {
  if (!existsSync(path)) return [];
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw fileError("metrics", "a readable file", path, error);
  }
  return text.split("\n").flatMap((line) => {
    try {
      // Written by MetricsWriter alone; a line that is not whole does not parse.
      return line === "" ? [] : [JSON.parse(line) as Metrics];
    } catch {
      return [];
    }
  });
}

function dropLaterLines(path: string, lastStep: number): void {
  if (!existsSync(path)) return;
  const kept = readMetrics(path).filter(({ step }) => step <= lastStep);
  writeText("metrics", path, kept.map((line) => `${JSON.stringify(line)}\n`).join(""));
}
