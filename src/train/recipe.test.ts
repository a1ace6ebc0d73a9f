import { describe, expect, it } from "vitest";
import { parseRecipe, withAssignment } from "./recipe.ts";

const minimal = { run: "runs/x", data: { train: "text" }, totalTokens: 1000, batchTokens: 4096 };

describe("recipes", () => {
  it("default to the model card", () => {
    const { optim, sequenceLength, precision } = parseRecipe(minimal);
    expect(optim).toMatchObject({
      lr: 3e-4,
      minLr: 3e-5,
      warmupTokens: 500_000_000,
      decayFraction: 0.95,
      betas: [0.9, 0.95],
      weightDecay: 0.1,
      clip: 1,
    });
    expect({ sequenceLength, precision }).toEqual({ sequenceLength: 4096, precision: "bf16" });
  });

  it("take assignments by path, also into a model given by name", () => {
    const changed = ["optim.lr=1e-3", "model.numLayers=3", "data.train.0.weight=2"].reduce(withAssignment, {
      ...minimal,
      model: "nemotron-10m",
      data: { train: [{ source: "text", weight: 1 }] },
    } as unknown);
    const recipe = parseRecipe(changed);
    expect(recipe.optim.lr).toBe(1e-3);
    expect(recipe.model).toEqual({ preset: "nemotron-10m", numLayers: 3 });
    expect(recipe.data.train[0].weight).toBe(2);
  });

  it("take assignments into a tuning's method and objective given by name", () => {
    const set = ["method.rank=4", "objective.beta=0.2", "objective.precomputeReference=true"];
    const short = { method: "lora", objective: "dpo" };
    const long = {
      method: { method: "lora", rank: 4 },
      objective: { kind: "dpo", beta: 0.2, precomputeReference: true },
    };
    expect(set.reduce<unknown>(withAssignment, short)).toEqual(long);
    expect(set.reduce<unknown>(withAssignment, long)).toEqual(long);
    expect(() => withAssignment({ run: "runs/a" }, "run.name=b")).toThrow(
      `expected a group of fields before 'name', got "runs/a"`,
    );
  });

  it("refuse unknown keys with the nearest", () => {
    expect(() => parseRecipe({ ...minimal, optim: { learningrate: 1 } })).toThrow(
      /expected a known key, got 'optim.learningrate'/,
    );
    expect(() => parseRecipe({ ...minimal, sequencelength: 1 })).toThrow("(did you mean 'sequenceLength'?)");
    expect(() => withAssignment(minimal, "optim.lr")).toThrow("[--set] expected path=value, got 'optim.lr'");
  });
});
