import { describe, expect, it } from "vitest";
import { samplingFixture } from "../../../test/data/scratch.ts";
import { parseSplit, roundHalfEven, splitDocuments, SplitDealer, splitNames } from "./split.ts";

describe("splitDocuments", () => {
  it("cuts where Python's rounding cuts", () => {
    for (const { split, numDocuments, ranges } of samplingFixture().splits) {
      const parts = splitDocuments(numDocuments, split);
      splitNames.forEach((name, i) => {
        const range = ranges[i];
        expect(parts[name]).toEqual(range === null ? undefined : { begin: range[0], end: range[1] });
      });
    }
  });

  it("rounds halves to the even neighbour", () => {
    expect([0.5, 1.5, 2.5, 2.4999, 3].map(roundHalfEven)).toEqual([0, 2, 2, 2, 3]);
  });

  it("refuses what is no split", () => {
    for (const split of ["", "a,b", "1,2,3,4", "0,0,0", "-1,2", "98,,1"]) {
      expect(() => parseSplit(split)).toThrow("expected up to three shares");
    }
  });
});

describe("SplitDealer", () => {
  it("deals exact shares, a validation document among the first two", () => {
    const dealer = new SplitDealer("98,1,1");
    const dealt = Array.from({ length: 1000 }, () => dealer.next());
    const count = (name: string): number => dealt.filter((part) => part === name).length;
    expect([count("train"), count("valid"), count("test")]).toEqual([980, 10, 10]);
    expect(dealt.slice(0, 2)).toEqual(["train", "valid"]);
  });

  it("gives nothing to a share of 0", () => {
    const dealer = new SplitDealer("1,0,0");
    expect(Array.from({ length: 5 }, () => dealer.next())).toEqual(Array(5).fill("train"));
  });
});
