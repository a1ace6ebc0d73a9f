/**
 * The search for the fastest algorithm of a large product. Under the load of a training step a card reaches its power limit and lowers its
 * clock; then the algorithm that takes least energy wins, and single runs on a cool card do not show it. So all candidates run in short
 * stretches without a gap, each judged by the library's first choice just before and after it, because the clock moves by a tenth from moment
 * to moment; then the best ones' variants; and the best of all in long stretches by turns, which decide.
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
  /** Whether an algorithm gives what the library's first choice does. */
  agrees: (algorithm: LtAlgorithm, first: LtAlgorithm) => boolean;
}

/** Load before anything is timed. */
const warmMs = 60;
const shortMs = 3;
const longMs = 25;
const numTurns = 4;
/** In the long stretches: the best of all, and the best of the library's own, which need not be among them. */
const numFinalists = 3;
const numOwnFinalists = 2;
const numVaried = 4;
/** How much faster than the library's own a variant must be: what the long stretches can tell apart. */
const leastGain = 0.01;
/** All variants together may take about this long, with the run that loads each of them. */
const variantsMs = 400;

/** Runs that take about `milliseconds`. */
export function runsIn(milliseconds: number, singleMs: number): number {
  return Math.max(1, Math.min(1000, Math.ceil(milliseconds / Math.max(singleMs, 0.01))));
}

interface Ranked {
  readonly algorithm: LtAlgorithm;
  readonly milliseconds: number;
  /** Not the library's own: its results are compared before it is chosen. */
  readonly isVariant: boolean;
}

/** The algorithm with the highest lasting rate; undefined where none runs. */
export function searchUnderLoad(
  timer: Stretches,
  candidates: readonly LtAlgorithm[],
  variantsOf: (algorithm: LtAlgorithm) => LtAlgorithm[],
): TimedChoice | undefined {
  const runnable = timer.runnable(candidates);
  const [first] = runnable;
  if (first === undefined) return undefined;
  const single = timer.queue(first, 2);
  timer.wait();
  const singleMs = single.millisecondsEach();
  timer.queue(first, runsIn(warmMs, singleMs));
  const numRuns = runsIn(shortMs, singleMs);
  const round = (algorithms: readonly LtAlgorithm[], isVariant: boolean): Ranked[] => {
    const references = [timer.queue(first, 1)];
    const stretches = algorithms.map((algorithm) => {
      const stretch = timer.queue(algorithm, numRuns);
      references.push(timer.queue(first, 1));
      return stretch;
    });
    timer.wait();
    return algorithms.map((algorithm, index) => {
      const beside = (references[index].millisecondsEach() + references[index + 1].millisecondsEach()) / 2;
      return {
        algorithm,
        milliseconds: (singleMs * stretches[index].millisecondsEach()) / beside,
        isVariant,
      };
    });
  };
  const ranked = sorted(round(runnable, false));
  const known = new Set(candidates.map(keyOf));
  const mostVariants = Math.floor(variantsMs / (singleMs * (2 + numRuns)));
  const variants = inTurn(ranked.slice(0, numVaried).map(({ algorithm }) => variantsOf(algorithm)))
    .filter((algorithm) => !known.has(keyOf(algorithm)) && known.add(keyOf(algorithm)))
    .slice(0, mostVariants);
  const best = sorted([...ranked, ...round(timer.runnable(variants), true)]).slice(0, numFinalists);
  const finalists = [...new Set([...best, ...ranked.slice(0, numOwnFinalists)])];
  const decided = decide(timer, finalists, runsIn(longMs, singleMs));
  const own = decided.find(({ isVariant }) => !isVariant);
  const needed = own === undefined ? Infinity : own.milliseconds * (1 - leastGain);
  const chosen = decided.find(
    ({ algorithm, isVariant, milliseconds }) =>
      !isVariant || (milliseconds <= needed && timer.agrees(algorithm, first)),
  );
  return chosen && { algorithm: chosen.algorithm, microseconds: 1000 * chosen.milliseconds };
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

function keyOf({ bytes }: LtAlgorithm): string {
  return Buffer.from(bytes).toString("hex");
}

/** The first of each list, then the second of each, and so on. */
function inTurn<Item>(lists: readonly (readonly Item[])[]): Item[] {
  const longest = Math.max(0, ...lists.map((list) => list.length));
  return Array.from({ length: longest }, (_, index) =>
    lists.flatMap((list) => list.slice(index, index + 1)),
  ).flat();
}
