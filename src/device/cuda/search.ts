/**
 * The search for the fastest algorithm of a large product. Under the load of a training step a card reaches its power limit and lowers its
 * clock; then the algorithm that takes least energy wins, and single runs on a cool card do not show it. So all candidates run in short
 * stretches without a gap, each judged by the library's first choice just before and after it, because the clock moves by a tenth from moment
 * to moment; then the best of them in long stretches by turns, which decide.
 * Knows nothing of the GPU: tests give it a clock of their own.
 */
import type { LtAlgorithm } from "./cublaslt.ts";

export interface TimedChoice {
  readonly algorithm: LtAlgorithm;
  readonly microseconds: number;
}

/** Runs of one algorithm back to back. */
export interface Stretch {
  /** Of a run on average, once the device has been waited for. */
  millisecondsEach: () => number;
}

/** What the search needs of the GPU. */
export interface Stretches {
  /** The algorithms that the library starts, each having run once. */
  runnable: (algorithms: readonly LtAlgorithm[]) => LtAlgorithm[];
  queue: (algorithm: LtAlgorithm, numRuns: number) => Stretch;
  wait: () => void;
}

/** Load before anything is timed. */
const warmMs = 60;
const shortMs = 3;
const longMs = 25;
const numTurns = 4;
const numFinalists = 5;

/** Runs that take about `milliseconds`. */
export function runsIn(milliseconds: number, singleMs: number): number {
  return Math.max(1, Math.min(1000, Math.ceil(milliseconds / Math.max(singleMs, 0.01))));
}

interface Ranked {
  readonly algorithm: LtAlgorithm;
  readonly milliseconds: number;
}

/** The algorithm with the highest lasting rate; undefined where none runs. */
export function searchUnderLoad(
  timer: Stretches,
  candidates: readonly LtAlgorithm[],
): TimedChoice | undefined {
  const runnable = timer.runnable(candidates);
  const [first] = runnable;
  if (first === undefined) return undefined;
  const single = timer.queue(first, 2);
  timer.wait();
  const singleMs = single.millisecondsEach();
  timer.queue(first, runsIn(warmMs, singleMs));
  const ranked = rank(timer, runnable, { first, singleMs });
  const [chosen] = decide(timer, ranked.slice(0, numFinalists), runsIn(longMs, singleMs));
  return { algorithm: chosen.algorithm, microseconds: 1000 * chosen.milliseconds };
}

/** Short stretches, each counted in runs of `first` before and after it. */
function rank(
  timer: Stretches,
  algorithms: readonly LtAlgorithm[],
  { first, singleMs }: { first: LtAlgorithm; singleMs: number },
): Ranked[] {
  const numRuns = runsIn(shortMs, singleMs);
  const references = [timer.queue(first, 1)];
  const stretches = algorithms.map((algorithm) => {
    const stretch = timer.queue(algorithm, numRuns);
    references.push(timer.queue(first, 1));
    return stretch;
  });
  timer.wait();
  return sorted(
    algorithms.map((algorithm, index) => {
      const beside = (references[index].millisecondsEach() + references[index + 1].millisecondsEach()) / 2;
      return { algorithm, milliseconds: (singleMs * stretches[index].millisecondsEach()) / beside };
    }),
  );
}

/** Long stretches by turns, there and back, so that a change of the clock meets all of them; the slowest of each does not count. */
function decide(timer: Stretches, finalists: readonly Ranked[], numRuns: number): Ranked[] {
  const stretches = finalists.map((): Stretch[] => []);
  for (let turn = 0; turn < numTurns; turn++)
    for (let place = 0; place < finalists.length; place++) {
      const index = turn % 2 === 0 ? place : finalists.length - 1 - place;
      stretches[index].push(timer.queue(finalists[index].algorithm, numRuns));
    }
  timer.wait();
  return sorted(
    finalists.map((finalist, index) => {
      const times = stretches[index].map((stretch) => stretch.millisecondsEach()).toSorted((a, b) => a - b);
      const counted = times.slice(0, -1);
      return { ...finalist, milliseconds: counted.reduce((sum, time) => sum + time, 0) / counted.length };
    }),
  );
}

/** The shortest first; among equals the order stays. */
function sorted(ranked: readonly Ranked[]): Ranked[] {
  return ranked.toSorted((left, right) => left.milliseconds - right.milliseconds);
}
