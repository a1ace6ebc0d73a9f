/** Losses of preferences: known values, and derivatives against finite differences. */
import { describe, expect, it } from "vitest";
import { pairLoss, unpairedLoss } from "./objective.ts";
import type { PairKind, PairScores, PreferenceObjective } from "./objective.ts";
import { parseTuneRecipe } from "./recipe.ts";

const base: PreferenceObjective = {
  kind: "dpo",
  beta: 0.3,
  labelSmoothing: 0.1,
  sftWeight: 0.2,
  eta: 0.7,
  desirableWeight: 1,
  undesirableWeight: 1.5,
};
const pair: PairScores = {
  chosen: { policy: -7, reference: -8.5, numTokens: 5 },
  rejected: { policy: -9, reference: -8, numTokens: 3 },
  chosenReward: 4,
  rejectedReward: 1,
};

describe("pairs", () => {
  it.each(["dpo", "ipo", "rpo-sq", "rpo-bwd-kl", "rpo-fwd-kl"] as const satisfies readonly PairKind[])(
    "%s: derivatives",
    (kind) => {
      const objective = { ...base, kind };
      const at = (chosen: number, rejected: number): number =>
        pairLoss(
          {
            ...pair,
            chosen: { ...pair.chosen, policy: -7 + chosen },
            rejected: { ...pair.rejected, policy: -9 + rejected },
          },
          objective,
        ).loss;
      const h = 1e-5;
      const { dchosen, drejected } = pairLoss(pair, objective);
      expect(dchosen).toBeCloseTo((at(h, 0) - at(-h, 0)) / (2 * h), 7);
      expect(drejected).toBeCloseTo((at(0, h) - at(0, -h)) / (2 * h), 7);
    },
  );
  it("begin at ln 2 for DPO, at 1 / (4 beta^2) for IPO, and at 0 for RPO whose rewards are met", () => {
    const equal = {
      ...pair,
      chosen: { ...pair.chosen, policy: -8.5 },
      rejected: { ...pair.rejected, policy: -8 },
    };
    const plain = { ...base, sftWeight: 0, labelSmoothing: 0 };
    expect(pairLoss(equal, plain).loss).toBe(Math.LN2);
    expect(pairLoss(equal, { ...plain, kind: "ipo" }).loss).toBeCloseTo(1 / (4 * 0.09), 12);
    for (const kind of ["rpo-sq", "rpo-bwd-kl", "rpo-fwd-kl"] as const)
      expect(pairLoss({ ...equal, chosenReward: 2, rejectedReward: 2 }, { ...plain, kind }).loss).toBeCloseTo(
        0,
        12,
      );
  });
});

describe("unpaired texts", () => {
  it.each([true, false])("desirable %s: derivative, and one half at the baseline", (isDesirable) => {
    const at = (policy: number) =>
      unpairedLoss({ policy, reference: -8, numTokens: 4 }, { isDesirable, baseline: 0.4 }, base);
    const h = 1e-5;
    expect(at(-7).derivative).toBeCloseTo((at(-7 + h).loss - at(-7 - h).loss) / (2 * h), 8);
    expect(at(-7.6).loss).toBeCloseTo(isDesirable ? 0.5 : 0.75, 12);
  });
});

describe("recipes", () => {
  const recipe = { run: "r", model: "m", data: { train: "d.jsonl" } };
  it("have defaults and say what they do not know", () => {
    expect(parseTuneRecipe(recipe)).toMatchObject({
      method: { method: "lora", rank: 16 },
      objective: { kind: "sft" },
      epochs: 3,
    });
    expect(parseTuneRecipe({ ...recipe, method: "full" }).method).toBeUndefined();
    expect(() => parseTuneRecipe({ ...recipe, rank: 8 })).toThrow("(did you mean 'method.rank'?)");
    expect(() => parseTuneRecipe({ ...recipe, beta: 8 })).toThrow("(did you mean 'objective.beta'?)");
    expect(() => parseTuneRecipe({ ...recipe, method: "loar" })).toThrow(
      /method: expected one of full, lora, .*did you mean 'lora'/,
    );
    expect(() => parseTuneRecipe({ ...recipe, method: { method: "lora", rank: 0 } })).toThrow(
      /rank: expected/,
    );
    expect(() => parseTuneRecipe({ ...recipe, epoch: 3 })).toThrow(/did you mean 'epochs'/);
    expect(() => parseTuneRecipe({ ...recipe, method: "full", objective: "dpo" })).toThrow(
      /expected an adapter for dpo/,
    );
    expect(() => parseTuneRecipe({ ...recipe, batchSize: 3, microBatch: 2 })).toThrow(
      /multiple of microBatch 2, got 3/,
    );
  });
});
