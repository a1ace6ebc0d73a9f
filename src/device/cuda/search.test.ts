/** The search for algorithms, over a clock of the test's own: which one is chosen, and how long it may take. */
import { describe, expect, it } from "vitest";
import type { LtAlgorithm } from "./cublaslt.ts";
import { runsIn, searchUnderLoad, type Stretches } from "./search.ts";

const algorithm = (id: number): LtAlgorithm => ({ bytes: new Uint8Array(64).fill(id), workspaceBytes: 0 });
const idOf = ({ bytes }: LtAlgorithm): number => bytes[0];

/** Algorithms by number: milliseconds of a run in short and in long stretches. */
class Clock implements Stretches {
  totalMs = 0;
  /** How much slower the clock gets at times. */
  drift = 0;
  readonly #times: (id: number) => { short: number; long: number };
  readonly #refused: readonly number[];

  constructor(
    times: (id: number) => { short: number; long: number },
    { refused = [] }: { refused?: readonly number[] } = {},
  ) {
    this.#times = times;
    this.#refused = refused;
  }

  runnable = (algorithms: readonly LtAlgorithm[]): LtAlgorithm[] =>
    algorithms.filter((tried) => {
      if (this.#refused.includes(idOf(tried))) return false;
      this.totalMs += this.#times(idOf(tried)).short;
      return true;
    });

  queue = (queued: LtAlgorithm, numRuns: number) => {
    const { short, long } = this.#times(idOf(queued));
    const slowness = 1 + this.drift * Math.sin(this.totalMs / 40) ** 2;
    const milliseconds = (numRuns * short > 20 ? long : short) * slowness;
    this.totalMs += numRuns * milliseconds;
    return { millisecondsEach: () => milliseconds };
  };

  wait = (): void => {};
}

const candidates = Array.from({ length: 36 }, (_, id) => algorithm(id));
const steady = (milliseconds: (id: number) => number) => (id: number) => ({
  short: milliseconds(id),
  long: milliseconds(id),
});

describe("the search under load", () => {
  it("lets the long stretches decide among the best of the short ones", () => {
    // 7 is fastest while the card is cool, 5 once it has lowered its clock.
    const clock = new Clock((id) => ({
      short: id === 7 ? 0.9 : id === 5 ? 0.95 : 1,
      long: id === 5 ? 1.1 : 1.2,
    }));
    const chosen = searchUnderLoad(clock, candidates);
    expect(chosen && idOf(chosen.algorithm)).toBe(5);
    expect(chosen?.microseconds).toBeCloseTo(1100);
  });

  it("does not take a moment of a high clock for a fast algorithm", () => {
    const clock = new Clock(steady((id) => (id === 29 ? 0.95 : 1)));
    clock.drift = 0.2;
    const chosen = searchUnderLoad(clock, candidates);
    expect(chosen && idOf(chosen.algorithm)).toBe(29);
  });

  it("passes over what the library refuses", () => {
    const clock = new Clock(
      steady((id) => 1 + id),
      { refused: [1] },
    );
    const chosen = searchUnderLoad(clock, [algorithm(0), algorithm(1)]);
    expect(chosen && idOf(chosen.algorithm)).toBe(0);
    const nothing = new Clock(
      steady(() => 1),
      { refused: [0, 1] },
    );
    expect(searchUnderLoad(nothing, [algorithm(0), algorithm(1)])).toBeUndefined();
  });

  it.each([0.05, 0.3, 1.5, 6])("takes below a second and a half for products of %d ms", (milliseconds) => {
    const clock = new Clock(steady(() => milliseconds));
    searchUnderLoad(clock, candidates);
    expect(clock.totalMs).toBeLessThan(1500);
    expect(clock.totalMs).toBeGreaterThan(350);
  });
});

it("runs an algorithm at least once and never for ever", () => {
  expect(runsIn(25, 1)).toBe(25);
  expect(runsIn(3, 1.4)).toBe(3);
  expect(runsIn(25, 80)).toBe(1);
  expect(runsIn(25, 0)).toBe(1000);
});
