import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Merge } from "./definition.ts";
import { MergeTable } from "./mergeTable.ts";

/** The definition, word for word: look for the first merge of the list that applies anywhere, apply it leftmost, begin again. */
function applyPlainly(merges: readonly Merge[], symbols: readonly number[]): number[] {
  const list = [...symbols];
  for (;;) {
    let at = -1;
    const merge = merges.find(({ left, right }) => {
      at = list.findIndex((symbol, i) => symbol === left && list[i + 1] === right);
      return at >= 0;
    });
    if (merge === undefined) return list;
    list.splice(at, 2, merge.merged);
  }
}

const numLetters = 3;
/** Merges of ever new pairs over three letters: each makes the next id. */
const anyMerges = fc.array(fc.tuple(fc.nat(), fc.nat()), { maxLength: 40 }).map((choices) => {
  const merges: Merge[] = [];
  for (const [a, b] of choices) {
    const merged = numLetters + merges.length;
    const [left, right] = [a % merged, b % merged];
    if (!merges.some((merge) => merge.left === left && merge.right === right))
      merges.push({ left, right, merged });
  }
  return merges;
});

describe("MergeTable", () => {
  it.each([
    ["short words", 40],
    ["words long enough for the heap", 200],
  ])("applies merges as the definition says, in %s", (_, maxLength) => {
    const letters = fc.array(fc.nat(numLetters - 1), { minLength: maxLength / 4, maxLength });
    fc.assert(
      fc.property(anyMerges, letters, (merges, symbols) => {
        const buffer = Int32Array.from([9, ...symbols, 9]);
        const end = new MergeTable(merges).apply(buffer, 1, symbols.length + 1);
        expect([...buffer.subarray(1, end)]).toEqual(applyPlainly(merges, symbols));
        expect([buffer[0], buffer[symbols.length + 1]]).toEqual([9, 9]);
      }),
      { numRuns: 400 },
    );
  });
});
