/**
 * The search for the fastest algorithm of a large product. Under the load of a training step a card reaches its power limit and lowers its
 * clock; then the algorithm that takes least energy wins, and single runs on a cool card do not show it. So all candidates run in short
 * stretches without a gap, then the best ones' variants, and the best of all in long stretches by turns, which decide.
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
const numTurns = 2;
const numFinalists = 6;
const numVaried = 4;
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
  const round = (algorithms: readonly LtAlgorithm[], isVariant: boolean): Ranked[] => {
    const numRuns = runsIn(shortMs, singleMs);
    const stretches = algorithms.map((algorithm) => timer.queue(algorithm, numRuns));
    timer.wait();
    return algorithms.map((algorithm, index) => ({
      algorithm,
      milliseconds: stretches[index].millisecondsEach(),
      isVariant,
    }));
  };
  const ranked = sorted(round(runnable, false));
  const known = new Set(candidates.map(keyOf));
  const mostVariants = Math.floor(variantsMs / (singleMs * (1 + runsIn(shortMs, singleMs))));
  const variants = inTurn(ranked.slice(0, numVaried).map(({ algorithm }) => variantsOf(algorithm)))
    .filter((algorithm) => !known.has(keyOf(algorithm)) && known.add(keyOf(algorithm)))
    .slice(0, mostVariants);
  const finalists = sorted([...ranked, ...round(timer.runnable(variants), true)]).slice(0, numFinalists);
  const chosen = decide(timer, finalists, runsIn(longMs, singleMs)).find(
    ({ algorithm, isVariant }) => !isVariant || timer.agrees(algorithm, first),
  );
  return chosen && { algorithm: chosen.algorithm, microseconds: 1000 * chosen.milliseconds };
}

/** Long stretches by turns, so that a change of the clock meets all of them. */
function decide(timer: Stretches, finalists: readonly Ranked[], numRuns: number): Ranked[] {
  const turns = Array.from({ length: numTurns }, () =>
    finalists.map(({ algorithm }) => timer.queue(algorithm, numRuns)),
  );
  timer.wait();
  return sorted(
    finalists.map((finalist, index) => {
      const total = turns.reduce((sum, stretches) => sum + stretches[index].millisecondsEach(), 0);
      return { ...finalist, milliseconds: total / numTurns };
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
