/** Reads cover every likelihood: each scored token of each sequence is told once, by the row before it, whatever the contexts are. */
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

describe("reads of sequences that share contexts", () => {
  it("tell every scored token once, after the tokens before it", () => {
    fc.assert(
      fc.property(fc.array(sequence, { maxLength: 12 }), (sequences) => {
        const { reads, numReads } = planReads(sequences);
        const told = sequences.map((): number[][] => []);
        const readsOf = sequences.map(() => 0);
        for (const { tokens, from, index, alternatives } of reads) {
          readsOf[index]++;
          for (let end = from; end < tokens.length; end++)
            told[index].push(Array.from(tokens.subarray(0, end + 1)));
          for (const [token, others] of alternatives)
            for (const other of others) {
              readsOf[other]++;
              told[other].push([...tokens.slice(0, from), token]);
            }
        }
        for (const [index, { tokens, from }] of sequences.entries()) {
          const expected = Array.from(tokens.slice(from), (_, i) =>
            Array.from(tokens.subarray(0, from + i + 1)),
          );
          expect(told[index].toSorted((a, b) => a.length - b.length)).toEqual(expected);
        }
        expect(readsOf).toEqual(numReads);
      }),
    );
  });

  it("are one for a question whose choices are single tokens, and one more for each longer choice", () => {
    const context = [5, 6, 7];
    const sequences = [[1], [2], [3, 4], [2], [3, 9]].map((choice) => ({
      tokens: Int32Array.of(...context, ...choice),
      from: 3,
    }));
    const { reads } = planReads(sequences);
    expect(
      reads.map(({ tokens, from, alternatives }) => ({
        tokens: Array.from(tokens.subarray(3)),
        from,
        alternatives: [...alternatives],
      })),
    ).toEqual([
      {
        tokens: [1],
        from: 3,
        alternatives: [
          [2, [1, 3]],
          [3, [2, 4]],
        ],
      },
      { tokens: [3, 4], from: 4, alternatives: [] },
      { tokens: [3, 9], from: 4, alternatives: [] },
    ]);
  });
});
