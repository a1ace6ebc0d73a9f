/** The adapters that validation found best, kept beside the run's checkpoints. */
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { readMetrics } from "../../../train/index.ts";
import { checkpointOf } from "./parts.ts";
import type { Parts } from "./parts.ts";

/** The best adapters by validation loss, and when to stop. What it knows is in the run's metrics, so that a resumed run knows the same. */
export class BestAdapters {
  readonly #parts: Parts;
  readonly #folder: string;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#folder = join(parts.prepared.recipe.run, "best");
  }

  /** Evaluations so far, by step. */
  history(): { step: number; loss: number }[] {
    return readMetrics(join(this.#parts.prepared.recipe.run, "metrics.jsonl")).flatMap((line) =>
      line.kind === "validation" ? [{ step: line.step, loss: line.loss }] : [],
    );
  }

  /** Keeps the adapter where it is among the best; true when there was no gain for too long. */
  take(step: number, _loss: number): boolean {
    const { keepBest, patience } = this.#parts.prepared.recipe.evaluation;
    const history = this.history();
    const ranked = history.toSorted((a, b) => a.loss - b.loss || a.step - b.step);
    const kept = new Set(ranked.slice(0, keepBest).map((entry) => entry.step));
    if (kept.has(step)) this.#save(join(this.#folder, `step-${step}`));
    for (const name of existsSync(this.#folder) ? readdirSync(this.#folder) : []) {
      if (!kept.has(Number(name.replace("step-", "")))) rmSync(join(this.#folder, name), { recursive: true });
    }
    const bestAt = history.findIndex((entry) => entry.step === ranked[0].step);
    return patience > 0 && history.length - 1 - bestAt >= patience;
  }

  /** All of it or nothing: a full disk leaves no half of an adapter. */
  #save(folder: string): void {
    try {
      checkpointOf(this.#parts)?.saveFiles(folder);
    } catch (error) {
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }
}
