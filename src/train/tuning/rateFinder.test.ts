import { describe, expect, it } from "vitest";
import { hasDiverged, smoothedLosses, suggestRate, sweepRates } from "./rateFinder.ts";

describe("the learning-rate finder", () => {
  it("multiplies rates by one factor", () => {
    const rates = sweepRates({ low: 1e-6, high: 1e-2, numSteps: 5 });
    for (const [i, expected] of [1e-6, 1e-5, 1e-4, 1e-3, 1e-2].entries())
      expect(rates[i] / expected).toBeCloseTo(1, 12);
    expect(() => sweepRates({ low: 1, high: 0.1, numSteps: 5 })).toThrow(/expected rates that grow/);
    expect(() => sweepRates({ low: 1, high: 2, numSteps: 1 })).toThrow(/at least 2 steps/);
  });

  it("smooths without the pull of its start", () => {
    for (const value of smoothedLosses([3, 3, 3])) expect(value).toBeCloseTo(3, 12);
    const [, second] = smoothedLosses([1, 2]);
    expect(second).toBeCloseTo((0.8 * 0.2 * 1 + 0.2 * 2) / 0.36, 12);
  });

  it("suggests where the loss falls most steeply", () => {
    // Falls around 1e-3 (a logistic in the logarithm of the rate), rises beyond 0.1.
    const points = sweepRates({ low: 1e-6, high: 1, numSteps: 121 }).map((rate) => {
      const decades = Math.log10(rate);
      return { rate, loss: 4 - 2 / (1 + Math.exp(-4 * (decades + 3))) + Math.max(0, decades + 1) * 20 };
    });
    const { steepest, tenthOfLowest } = suggestRate(points);
    // The smoothed curve lags by some steps of a twentieth of a decade.
    expect(Math.log10(steepest ?? 0)).toBeGreaterThan(-3.1);
    expect(Math.log10(steepest ?? 0)).toBeLessThan(-2.6);
    expect(Math.log10(tenthOfLowest)).toBeLessThan(-1.5);
    expect(tenthOfLowest * 10).toBeGreaterThan(steepest ?? 1);
  });

  it("suggests nothing of a loss that only rises, and stops at divergence", () => {
    const rising = [1, 2, 3, 4].map((loss, i) => ({ rate: 10 ** -(4 - i), loss }));
    expect(suggestRate(rising).steepest).toBeUndefined();
    expect(() => suggestRate([{ rate: 1, loss: Number.NaN }])).toThrow(/2 finite losses/);
    expect(hasDiverged([2, 2, 2])).toBe(false);
    expect(hasDiverged([2, 2, 200])).toBe(true);
    expect(hasDiverged([2, Number.NaN])).toBe(true);
  });
});
