/**
 * The learning-rate range test (Smith, "Cyclical Learning Rates for Training Neural Networks", 2017): the rate grows by one factor per step,
 * the smoothed loss first falls, then rises and diverges; a good rate is where it falls most steeply, well before the rise.
 */
import { ConfigError } from "../../base/index.ts";

export interface RateSweep {
  /** First and last rate. */
  low: number;
  high: number;
  numSteps: number;
}

export interface RatePoint {
  rate: number;
  loss: number;
}

export interface RateSuggestion {
  /** Losses of the sweep, smoothed with its bias corrected. */
  smoothed: number[];
  /** Where the smoothed loss falls most steeply over the logarithm of the rate; undefined where it never falls. */
  steepest: number | undefined;
  /** A tenth of the rate of the lowest loss. */
  tenthOfLowest: number;
}

const smoothing = 0.8;
const divergence = 4;
/** Steps whose smoothed loss is of too few losses to tell a slope. */
const warmSteps = 3;

/** Rates of a sweep, each the one before times the same factor. Throws ConfigError. */
export function sweepRates({ low, high, numSteps }: RateSweep): number[] {
  if (!(low > 0 && high > low))
    throw new ConfigError("tune", `expected rates that grow from above 0, got ${low} to ${high}`);
  if (numSteps < 2) throw new ConfigError("tune", `expected at least 2 steps of a sweep, got ${numSteps}`);
  return Array.from({ length: numSteps }, (_, i) => low * (high / low) ** (i / (numSteps - 1)));
}

/** Exponential moving averages, each divided by the share of weights it has seen. */
export function smoothedLosses(losses: readonly number[]): number[] {
  let average = 0;
  return losses.map((loss, i) => {
    average = smoothing * average + (1 - smoothing) * loss;
    return average / (1 - smoothing ** (i + 1));
  });
}

/** Whether a sweep has nothing more to tell: a loss that is no number, or a smoothed one far above the lowest. */
export function hasDiverged(losses: readonly number[]): boolean {
  const smoothed = smoothedLosses(losses);
  const last = smoothed.at(-1);
  return last !== undefined && !(last <= divergence * Math.min(...smoothed));
}

/** What a sweep says. Losses that are no numbers are left out. Throws ConfigError for a sweep without two losses. */
export function suggestRate(points: readonly RatePoint[]): RateSuggestion {
  const finite = points.filter(({ loss }) => Number.isFinite(loss));
  if (finite.length < 2) {
    throw new ConfigError("tune", `expected at least 2 finite losses of a sweep, got ${finite.length}`, {
      hint: "begin with a lower rate",
    });
  }
  const smoothed = smoothedLosses(finite.map(({ loss }) => loss));
  const lowest = smoothed.indexOf(Math.min(...smoothed));
  let steepest: { slope: number; rate: number } | undefined;
  for (let i = Math.min(warmSteps, lowest); i < lowest; i++) {
    const [from, to] = [finite[i], finite[i + 1]];
    const slope = (smoothed[i + 1] - smoothed[i]) / (Math.log(to.rate) - Math.log(from.rate));
    if (slope < (steepest?.slope ?? 0)) steepest = { slope, rate: from.rate };
  }
  return { smoothed, steepest: steepest?.rate, tenthOfLowest: finite[lowest].rate / 10 };
}
