import { describe, expect, it } from "vitest";
import { checkBatchSchedule, countSteps, learningRateAt, sequencesAt } from "./schedule.ts";

const card = { lr: 3e-4, minLr: 3e-5, warmupTokens: 500e6, decayFraction: 0.95 };
const at = (tokens: number): number =>
  learningRateAt(card, { tokensSeen: tokens, stepTokens: 0, totalTokens: 3.8e12 });

describe("the card's learning rate", () => {
  it("rises linearly over the warm-up", () => {
    expect(at(250e6)).toBeCloseTo(1.5e-4, 12);
    expect(at(500e6)).toBe(3e-4);
  });

  it("is half-way down in the middle of the cosine and on the floor from 95 % on", () => {
    const middle = (500e6 + 0.95 * 3.8e12) / 2;
    expect(at(middle)).toBeCloseTo((3e-4 + 3e-5) / 2, 12);
    expect(at(0.95 * 3.8e12)).toBe(3e-5);
    expect(at(3.8e12)).toBe(3e-5);
  });

  it("never begins at zero", () => {
    expect(learningRateAt(card, { tokensSeen: 0, stepTokens: 4e6, totalTokens: 3.8e12 })).toBeCloseTo(
      (3e-4 * 4e6) / 500e6,
      15,
    );
  });
});

describe("batches", () => {
  const schedule = { batchTokens: 4096, ramp: [{ untilTokens: 10_000, batchTokens: 1024 }] };

  it("ramp up by tokens seen", () => {
    expect(sequencesAt(schedule, 0, 512)).toBe(2);
    expect(sequencesAt(schedule, 10_000, 512)).toBe(8);
  });

  it("counts the steps that a walk over them takes", () => {
    for (const totalTokens of [1, 1024, 9_999, 10_000, 10_241, 50_000]) {
      let tokens = 0;
      let numSteps = 0;
      while (tokens < totalTokens) {
        tokens += 512 * sequencesAt(schedule, tokens, 512);
        numSteps++;
      }
      expect(countSteps(schedule, { totalTokens, sequenceLength: 512 })).toBe(numSteps);
    }
  });

  it("refuses a batch that is no whole number of sequences", () => {
    expect(() => checkBatchSchedule({ batchTokens: 1000, ramp: [] }, 512)).toThrow(
      "[recipe] batchTokens: expected a multiple of sequenceLength 512, got 1000",
    );
  });
});
