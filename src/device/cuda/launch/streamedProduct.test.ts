import { expect, it } from "vitest";
import { streamedForm, type StreamedForm } from "./streamedProduct.ts";

const numMultiprocessors = 132;
const formOf = (n: number, k: number, elementBytes = 2): StreamedForm =>
  streamedForm({ n, k, elementBytes }, numMultiprocessors);

it("shares rows out evenly, and columns where rows are few", () => {
  expect(formOf(12_288, 4096)).toEqual({ tileRows: 96, numSplits: 1 });
  expect(formOf(16_384, 4096)).toEqual({ tileRows: 128, numSplits: 1 });
  expect(formOf(4096, 16_384)).toEqual({ tileRows: 64, numSplits: 2 });
  expect(formOf(256_000, 4096)).toEqual({ tileRows: 72, numSplits: 1 });
  expect(formOf(2048, 8192)).toEqual({ tileRows: 64, numSplits: 4 });
  expect(formOf(2048, 1024)).toEqual({ tileRows: 64, numSplits: 1 });
});

it("shares codes of a byte out by their bytes", () => {
  expect(formOf(12_288, 4096, 1)).toEqual({ tileRows: 96, numSplits: 1 });
  expect(formOf(4096, 4096, 1)).toEqual({ tileRows: 64, numSplits: 2 });
  expect(formOf(2048, 8192, 1)).toEqual({ tileRows: 64, numSplits: 4 });
  expect(formOf(2048, 4096, 1)).toEqual({ tileRows: 64, numSplits: 2 });
  expect(formOf(2048, 2048, 1)).toEqual({ tileRows: 64, numSplits: 1 });
});

it("keeps tiles whole under every split, and one for each cluster", () => {
  for (let n = 8; n <= 40_000; n += 8 * 37) {
    const { tileRows, numSplits } = formOf(n, 8192);
    expect(tileRows % (8 * numSplits) === 0 || numSplits > 1).toBe(true);
    expect(tileRows % numSplits).toBe(0);
    expect(tileRows).toBeLessThanOrEqual(128);
    if (numSplits > 1) expect(Math.ceil(n / tileRows) * numSplits).toBeLessThanOrEqual(numMultiprocessors);
  }
});
