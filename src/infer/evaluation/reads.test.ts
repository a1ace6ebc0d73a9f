/** Reads cover every likelihood: each scored token of each sequence is told, after the tokens before it, and each row is asked once. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ScoredTokens } from "./pairs.ts";
import { planReads } from "./reads.ts";

const sequence = fc
  .array(fc.integer({ min: 0, max: 2 }), { minLength: 2, maxLength: 6 })
  .chain((tokens) =>
    fc
      .integer({ min: 1, max: tokens.length - 1 })
      .map((from): ScoredTokens => ({ tokens: Int32Array.from(tokens), from })),
  );

/** By place: the tokens up to the scored one. */
function toldBy({ reads }: ReturnType<typeof planReads>): Map<number, string> {
  const told = new Map<number, string>();
  const tell = (place: number, tokens: readonly number[]): void => {
    expect(told.has(place)).toBe(false);
    told.set(place, tokens.join(" "));
  };
  for (const { tokens, from, places, alternatives } of reads) {
    expect(places.length).toBe(tokens.length - from);
    for (const [i, place] of places.entries()) tell(place, Array.from(tokens.subarray(0, from + i + 1)));
    for (const { at, token, place } of alternatives) {
      expect(at).toBeGreaterThanOrEqual(from);
      expect(at).toBeLessThan(tokens.length);
      tell(place, [...tokens.subarray(0, at), token]);
    }
    expect(alternatives.map(({ at }) => at)).toEqual(
      alternatives.map(({ at }) => at).toSorted((a, b) => a - b),
    );
  }
  return told;
}

describe("reads of sequences that share contexts", () => {
  it("tell every scored token after the tokens before it", () => {
    fc.assert(
      fc.property(fc.array(sequence, { maxLength: 12 }), (sequences) => {
        const plan = planReads(sequences);
        const told = toldBy(plan);
        expect(told.size).toBe(plan.numPlaces);
        for (const [index, { tokens, from }] of sequences.entries()) {
          const expected = Array.from(tokens.subarray(from), (_, i) =>
            tokens.subarray(0, from + i + 1).join(" "),
          );
          expect(plan.places[index].map((place) => told.get(place))).toEqual(expected);
        }
      }),
    );
  });

  it("tell each token of one context once, and read each row once", () => {
    const continuations = fc.array(fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 5 }), {
      minLength: 1,
      maxLength: 12,
    });
    fc.assert(
      fc.property(continuations, (list) => {
        const plan = planReads(list.map((tokens) => ({ tokens: Int32Array.of(9, ...tokens), from: 1 })));
        const told = [...toldBy(plan).values()];
        expect(new Set(told).size).toBe(told.length);
        const rows = plan.reads.flatMap(({ tokens, from, places }) =>
          places.map((_, i) => tokens.subarray(0, from + i).join(" ")),
        );
        expect(new Set(rows).size).toBe(rows.length);
        expect(new Set(rows)).toEqual(
          new Set(told.map((tokens) => tokens.split(" ").slice(0, -1).join(" "))),
        );
      }),
    );
  });

  it("are one for a question whose choices differ in one token", () => {
    const sequences = [[1], [2], [3], [4]].map((choice) => ({
      tokens: Int32Array.of(5, 6, 7, ...choice),
      from: 2,
    }));
    const { reads } = planReads(sequences);
    expect(reads.map(({ tokens, from }) => [Array.from(tokens), from])).toEqual([[[5, 6, 7, 1], 2]]);
    expect(reads[0].alternatives.map(({ at, token }) => [at, token])).toEqual([
      [3, 2],
      [3, 3],
      [3, 4],
    ]);
  });
});
