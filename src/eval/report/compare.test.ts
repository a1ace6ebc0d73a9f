import { describe, expect, it } from "vitest";
import { compareValues, mcnemar } from "./compare.ts";

describe("paired comparison", () => {
  it("is McNemar's exact test for right or wrong (values by scipy.stats.binomtest)", () => {
    expect(mcnemar(0, 0)).toBe(1);
    expect(mcnemar(1, 9)).toBeCloseTo(0.021484375, 12);
    expect(mcnemar(10, 10)).toBe(1);
    expect(mcnemar(400, 500)).toBeCloseTo(0.0009564441369189461, 9);
  });

  it("takes the standard error of the differences", () => {
    const values = [1, 0, 1, 1].map((a, index) => ({ a, b: index === 1 ? 1 : a }));
    const result = compareValues(values);
    expect(result).toMatchObject({
      first: 0.75,
      second: 1,
      difference: 0.25,
      numOnlyFirst: 0,
      numOnlySecond: 1,
    });
    expect(result.standardError).toBeCloseTo(0.25, 12);
  });

  it("is a z-test for graded values", () => {
    const values = Array.from({ length: 100 }, (_, index) => ({
      a: 0.5,
      b: 0.5 + (index % 2 === 0 ? 0.3 : -0.2),
    }));
    const { difference, standardError, pValue } = compareValues(values);
    // 2 (1 - Phi(0.05 / 0.02512594538148032)) by scipy.
    expect(difference / standardError).toBeCloseTo(1.98997, 4);
    expect(pValue).toBeCloseTo(0.046594, 5);
  });
});
