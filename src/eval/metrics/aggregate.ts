/**
 * From the values of samples to a task's figure and its standard error, and from tasks' figures to a group's. Definitions, and the
 * bootstrap's draws, are the reference harness's (`lm_eval/api/metrics.py`).
 */
import { invariant } from "../../base/index.ts";
import { PythonRandom } from "../python/random.ts";
import { chrf, corpusBleu } from "./translation.ts";

/** A number, a log-likelihood with the count it is spread over, or a text with its references. */
export type SampleValue =
  | number
  | { readonly logprob: number; readonly weight: number }
  | { readonly hypothesis: string; readonly reference: string };

export type Aggregation =
  | "mean"
  /** exp(-mean) of log-likelihoods, one a document. */
  | "perplexity"
  /** exp(-sum of log-likelihoods / sum of weights). */
  | "weighted_perplexity"
  /** -sum of log-likelihoods / sum of bytes / ln 2. */
  | "bits_per_byte"
  | "bleu"
  | "chrf";

export interface AggregateOptions {
  /** Resamples of the bootstrap; the reference harness's default is 100,000. 0: no standard errors at all. */
  bootstrapIterations: number;
}

export const defaultBootstrapIterations = 100_000;

export interface Figure {
  value: number;
  /** NaN where the reference harness gives none. */
  standardError: number;
  numSamples: number;
}

/** The figure of a task's samples. NaN for none. */
export function aggregate(
  aggregation: Aggregation,
  values: readonly SampleValue[],
  { bootstrapIterations }: AggregateOptions,
): Figure {
  const numSamples = values.length;
  if (numSamples === 0) return { value: NaN, standardError: NaN, numSamples };
  const statistic = statistics[aggregation];
  const value = statistic(values);
  return { value, standardError: standardErrorOf(aggregation, values, bootstrapIterations), numSamples };
}

type Statistic = (values: readonly SampleValue[]) => number;

const statistics: Readonly<Record<Aggregation, Statistic>> = {
  mean: (values) => mean(numbersOf(values)),
  perplexity: (values) => Math.exp(-mean(numbersOf(values))),
  weighted_perplexity: (values) => Math.exp(-weightedMean(values)),
  bits_per_byte: (values) => -weightedMean(values) / Math.LN2,
  bleu: (values) => corpusBleu(translationsOf(values)),
  chrf: (values) => chrf(translationsOf(values)),
};

function standardErrorOf(
  aggregation: Aggregation,
  values: readonly SampleValue[],
  bootstrapIterations: number,
): number {
  if (bootstrapIterations <= 0) return NaN;
  switch (aggregation) {
    case "mean":
      return meanStandardError(numbersOf(values));
    case "perplexity":
      return bootstrap(perplexityDraw(numbersOf(values)), values.length, bootstrapIterations);
    case "bleu":
    case "chrf": {
      // A corpus figure for each resample is slow: the reference harness draws at most 100.
      const statistic = statistics[aggregation];
      const draw = (places: Int32Array): number => statistic(Array.from(places, (place) => values[place]));
      return bootstrap(draw, values.length, Math.min(bootstrapIterations, 100));
    }
    case "weighted_perplexity":
    case "bits_per_byte":
      return NaN;
  }
}

function numbersOf(values: readonly SampleValue[]): number[] {
  return values.map((value) => {
    invariant(typeof value === "number", "this aggregation is over numbers");
    return value;
  });
}

function translationsOf(values: readonly SampleValue[]): { hypothesis: string; reference: string }[] {
  return values.map((value) => {
    invariant(typeof value === "object" && "hypothesis" in value, "this aggregation is over texts");
    return value;
  });
}

function weightedMean(values: readonly SampleValue[]): number {
  let total = 0;
  let weight = 0;
  for (const value of values) {
    invariant(
      typeof value === "object" && "weight" in value,
      "this aggregation is over weighted likelihoods",
    );
    total += value.logprob;
    weight += value.weight;
  }
  return total / weight;
}

export function mean(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0) / values.length;
}

/** Standard deviation of the sample (n - 1). */
export function sampleDeviation(values: readonly number[]): number {
  const average = mean(values);
  const squares = values.reduce((total, value) => total + (value - average) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1));
}

/** NaN for one value. */
export function meanStandardError(values: readonly number[]): number {
  return sampleDeviation(values) / Math.sqrt(values.length);
}

function perplexityDraw(values: readonly number[]): Draw {
  const numbers = Float64Array.from(values);
  return (places) => {
    let total = 0;
    for (let i = 0; i < places.length; i++) total += numbers[places[i]];
    return Math.exp(-total / places.length);
  };
}

/** The statistic of a resample, given as the places of its values. */
type Draw = (places: Int32Array) => number;

const bootstrapChunk = 1000;

/** Standard deviation of a statistic over resamples: chunks of 1,000, chunk i drawn by Python's `Random(i).choices`. */
function bootstrap(draw: Draw, numValues: number, iterations: number): number {
  const chunkSize = Math.min(bootstrapChunk, iterations);
  const places = new Int32Array(numValues);
  const results: number[] = [];
  for (let chunk = 0; chunk < Math.floor(iterations / chunkSize); chunk++) {
    const random = new PythonRandom(chunk);
    for (let i = 0; i < chunkSize; i++) {
      random.fillPlaces(places, numValues);
      results.push(draw(places));
    }
  }
  return sampleDeviation(results);
}

/** A group's figure. Micro: weighted by samples, pooled errors; macro: members alike. */
export function combine(figures: readonly Figure[], average: "micro" | "macro"): Figure {
  const sizes = figures.map(({ numSamples }) => numSamples);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const errors = figures.map(({ standardError }) => standardError);
  if (average === "macro") {
    const squares = errors.reduce((sum, error) => sum + error ** 2, 0);
    return {
      value: mean(figures.map(({ value }) => value)),
      standardError: Math.sqrt(squares) / figures.length,
      numSamples: total,
    };
  }
  const value = figures.reduce((sum, figure) => sum + figure.value * figure.numSamples, 0) / total;
  const pooled = figures.reduce(
    (sum, { standardError, numSamples }) => sum + (numSamples - 1) * standardError ** 2 * numSamples,
    0,
  );
  return {
    value,
    standardError: Math.sqrt(pooled / (total - figures.length) / total),
    numSamples: total,
  };
}
