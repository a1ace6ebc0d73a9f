import { expect, it } from "vitest";
import { splitSum } from "./thinProduct.ts";

const numMultiprocessors = 132;

it("cuts a sum only where its blocks do not give every multiprocessor work", () => {
  const sum = { numMultiprocessors, granularity: 64 };
  expect(splitSum(4096, { ...sum, numBlocks: 128 })).toEqual({ numSplits: 1, chunk: 4096 });
  expect(splitSum(4096, { ...sum, numBlocks: 32 })).toEqual({ numSplits: 4, chunk: 1024 });
  expect(splitSum(16_384, { ...sum, numBlocks: 16 })).toEqual({ numSplits: 8, chunk: 2048 });
  expect(splitSum(8, { ...sum, numBlocks: 1 })).toEqual({ numSplits: 1, chunk: 64 });
});

it("covers every term once, in whole steps", () => {
  for (let length = 1; length <= 20_000; length += 531)
    for (const numBlocks of [1, 3, 16, 64, 131, 1000]) {
      const { numSplits, chunk } = splitSum(length, { numBlocks, numMultiprocessors, granularity: 32 });
      expect(chunk % 32).toBe(0);
      expect(numSplits * chunk).toBeGreaterThanOrEqual(length);
      expect((numSplits - 1) * chunk).toBeLessThan(length);
      expect(numSplits * numBlocks).toBeLessThanOrEqual(Math.max(numBlocks, numMultiprocessors));
    }
});
