import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { samplingFixture } from "../../../test/data/scratch.ts";
import { NumpyRandomState } from "./numpyRandom.ts";

describe("NumpyRandomState", () => {
  it("draws the 32-bit numbers of numpy.random.RandomState", () => {
    for (const { seed, first, words } of samplingFixture().random) {
      const random = new NumpyRandomState(seed);
      const drawn = Uint32Array.from({ length: 1500 }, () => random.nextUint32());
      expect([...drawn.subarray(0, 4)]).toEqual(first);
      expect(createHash("sha256").update(drawn).digest("hex")).toBe(words);
    }
  });

  it("shuffles as numpy.random.RandomState does", () => {
    for (const { seed, shuffled } of samplingFixture().random) {
      const array = Int32Array.from({ length: shuffled.length }, (_, i) => i);
      new NumpyRandomState(seed).shuffle(array);
      expect([...array]).toEqual(shuffled);
    }
    const ten = Int32Array.from({ length: 10 }, (_, i) => i);
    new NumpyRandomState(1234).shuffle(ten);
    expect([...ten]).toEqual([7, 2, 9, 1, 0, 8, 4, 5, 6, 3]);
  });

  it("refuses seeds that numpy refuses", () => {
    for (const seed of [-1, 2 ** 32, 0.5]) {
      expect(() => new NumpyRandomState(seed)).toThrow("expected a seed between 0 and 4294967295");
    }
  });
});
