import { expect, it } from "vitest";
import { splitColumns } from "./matvec.ts";

const numMultiprocessors = 132;

it("splits columns only where they exceed the registers or rows are few", () => {
  expect(splitColumns(4096, 256, numMultiprocessors)).toEqual({ numSplits: 1, chunk: 4096 });
  expect(splitColumns(16_384, 256, numMultiprocessors)).toEqual({ numSplits: 4, chunk: 4096 });
  expect(splitColumns(4160, 256, numMultiprocessors)).toEqual({ numSplits: 2, chunk: 2112 });
  expect(splitColumns(4096, 1, numMultiprocessors)).toEqual({ numSplits: 4, chunk: 1024 });
  expect(splitColumns(8, 1, numMultiprocessors)).toEqual({ numSplits: 1, chunk: 64 });
});

it("covers every column once, within what a block holds", () => {
  for (let k = 8; k <= 40_000; k += 8 * 37)
    for (const numTiles of [1, 5, 64, 131, 1000]) {
      const { numSplits, chunk } = splitColumns(k, numTiles, numMultiprocessors);
      expect(chunk % 64).toBe(0);
      expect(chunk).toBeLessThanOrEqual(4096);
      expect(numSplits * chunk).toBeGreaterThanOrEqual(k);
      expect((numSplits - 1) * chunk).toBeLessThan(k);
      expect(numSplits).toBeLessThanOrEqual(numMultiprocessors);
    }
});
