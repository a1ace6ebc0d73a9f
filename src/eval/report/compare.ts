/**
 * Two runs over the same samples: the difference of their means with its paired standard error, and how likely so large a difference is
 * by chance. For right-or-wrong values the exact test of McNemar (1947), else a z-test on the differences.
 */
import { DataError } from "../../base/index.ts";
import { mean, meanStandardError } from "../metrics/aggregate.ts";
import type { LoggedSample } from "../sampleLog.ts";

export interface Comparison {
  task: string;
  metric: string;
  numSamples: number;
  first: number;
  second: number;
  /** second - first. */
  difference: number;
  standardError: number;
  pValue: number;
  /** Samples that only the one or the other got right; undefined for graded values. */
  numOnlyFirst: number | undefined;
  numOnlySecond: number | undefined;
}

/** Compares the logs of a task. Throws DataError when they hold no common samples, or different prompts. */
export function compareLogs(
  task: string,
  first: readonly LoggedSample[],
  second: readonly LoggedSample[],
): Comparison[] {
  const others = new Map(second.map((sample) => [sample.index, sample]));
  const pairs = first.flatMap((sample) => {
    const other = others.get(sample.index);
    return other === undefined ? [] : [{ sample, other }];
  });
  if (pairs.length === 0) throw new DataError("eval", `expected common samples of ${task}, got none`);
  const changed = pairs.find(({ sample, other }) => sample.promptHash !== other.promptHash);
  if (changed !== undefined) {
    throw new DataError(
      "eval",
      `expected the same prompts of ${task} in both runs, got another at sample ${changed.sample.index}`,
      { hint: "compare runs of the same shots and task version" },
    );
  }
  return Object.keys(pairs[0].sample.values).flatMap((metric) => {
    const values = pairs.flatMap(({ sample, other }) => {
      const [a, b] = [sample.values[metric], other.values[metric]];
      return typeof a === "number" && typeof b === "number" ? [{ a, b }] : [];
    });
    return values.length < 2 ? [] : [{ task, metric, ...compareValues(values) }];
  });
}

export function compareValues(
  values: readonly { a: number; b: number }[],
): Omit<Comparison, "task" | "metric"> {
  const differences = values.map(({ a, b }) => b - a);
  const difference = mean(differences);
  const standardError = meanStandardError(differences);
  const isBinary = values.every(({ a, b }) => (a === 0 || a === 1) && (b === 0 || b === 1));
  const numOnlyFirst = differences.filter((value) => value < 0).length;
  const numOnlySecond = differences.filter((value) => value > 0).length;
  return {
    numSamples: values.length,
    first: mean(values.map(({ a }) => a)),
    second: mean(values.map(({ b }) => b)),
    difference,
    standardError,
    pValue: isBinary ? mcnemar(numOnlyFirst, numOnlySecond) : zTest(difference, standardError),
    numOnlyFirst: isBinary ? numOnlyFirst : undefined,
    numOnlySecond: isBinary ? numOnlySecond : undefined,
  };
}

/** Two-sided exact binomial test of discordant pairs against one half. */
export function mcnemar(numFirst: number, numSecond: number): number {
  const count = numFirst + numSecond;
  if (count === 0) return 1;
  let logChoose = 0;
  let tail = 0;
  for (let k = 0; k <= Math.min(numFirst, numSecond); k++) {
    tail += Math.exp(logChoose - count * Math.LN2);
    logChoose += Math.log(count - k) - Math.log(k + 1);
  }
  return Math.min(1, 2 * tail);
}

function zTest(difference: number, standardError: number): number {
  if (standardError === 0) return difference === 0 ? 1 : 0;
  return complementaryError(Math.abs(difference) / standardError / Math.SQRT2);
}

/** erfc for x >= 0, absolute error below 2e-7 (Abramowitz and Stegun, 7.1.26). */
function complementaryError(x: number): number {
  const t = 1 / (1 + 0.3275911 * x);
  const polynomial =
    ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return polynomial * Math.exp(-x * x);
}
