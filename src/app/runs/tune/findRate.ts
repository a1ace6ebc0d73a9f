/** `nautilus tune --find-lr`: a short sweep over learning rates on the recipe's own data, and what it says. Writes nothing to disk. */
import { hasDiverged, suggestRate, sweepRates } from "../../../train/index.ts";
import type { RatePoint } from "../../../train/index.ts";
import { note } from "../../../base/index.ts";
import { precomputeReferences, tuneStep } from "./parts.ts";
import type { Parts } from "./parts.ts";

const lowestRate = 1e-6;
const highestRate = 1;
const shownRows = 24;
const barWidth = 32;

/** Trains with a growing rate until the loss diverges, and prints losses and suggestions. */
export function findRate(parts: Parts, { numSteps, isJson }: { numSteps: number; isJson: boolean }): void {
  const points = sweep(parts, sweepRates({ low: lowestRate, high: highestRate, numSteps }));
  const suggestion = suggestRate(points);
  const { smoothed, steepest, tenthOfLowest } = suggestion;
  if (isJson) {
    const rows = points.map((point, i) => ({ ...point, smoothed: smoothed.at(i) }));
    process.stdout.write(`${JSON.stringify({ steepest, tenthOfLowest, points: rows }, undefined, 2)}\n`);
    return;
  }
  process.stdout.write(`${lossTable(points, suggestion)}\n`);
  process.stdout.write(
    steepest === undefined
      ? "the loss fell nowhere: is there anything to learn, and is the rate of the first steps low enough?\n"
      : `suggested: --set optim.lr=${steepest.toExponential(1)}   (steepest fall; a tenth of the lowest loss's rate is ${tenthOfLowest.toExponential(1)})\n`,
  );
}

function sweep(parts: Parts, rates: readonly number[]): RatePoint[] {
  const { prepared, context, optimizer, data } = parts;
  const { batchSize, microBatch, seed } = prepared.recipe;
  precomputeReferences(parts);
  using step = tuneStep(parts);
  optimizer.resetMasters(context);
  const points: RatePoint[] = [];
  for (const [index, rate] of rates.entries()) {
    const microBatches = Array.from({ length: batchSize / microBatch }, (_, i) =>
      data.batch(index * batchSize + i * microBatch, microBatch),
    );
    const pending = step.run(microBatches, {
      step: index + 1,
      learningRate: rate,
      seed,
      skipAboveNorm: Infinity,
    });
    points.push({ rate, loss: pending.wait().loss });
    if (hasDiverged(points.map(({ loss }) => loss))) {
      note(`the loss diverged at a rate of ${rate.toExponential(1)}`);
      break;
    }
  }
  return points;
}

/** Every few rates: rate, smoothed loss, and a bar of it between the lowest and the first. */
function lossTable(
  points: readonly RatePoint[],
  { smoothed, steepest }: { smoothed: readonly number[]; steepest: number | undefined },
): string {
  const low = Math.min(...smoothed);
  const high = Math.max(smoothed[0], low + 1e-12);
  const stride = Math.ceil(smoothed.length / shownRows);
  const shown = points.flatMap(({ rate }, i) =>
    i < smoothed.length && (i % stride === 0 || rate === steepest) ? [{ rate, loss: smoothed[i] }] : [],
  );
  const rows = shown.map(({ rate, loss }) => {
    const filled = Math.round(barWidth * Math.min(1, (loss - low) / (high - low)));
    const mark = rate === steepest ? "  <" : "";
    return `${rate.toExponential(1).padStart(8)}  ${loss.toFixed(4).padStart(9)}  ${"█".repeat(filled).padEnd(barWidth)}${mark}`;
  });
  return [`${"rate".padStart(8)}  ${"loss".padStart(9)}`, ...rows].join("\n");
}
