import { describe, expect, it } from "vitest";
import { z } from "zod";
import { parseConfig } from "./config.ts";

const schema = z.strictObject({
  optim: z.strictObject({ learningRate: z.number(), betas: z.array(z.number()).optional() }),
});

describe("parseConfig", () => {
  it("names the nearest known key", () => {
    expect(() => parseConfig("recipe", schema, { optim: { learningRat: 1 } })).toThrow(
      "[recipe] expected a known key, got 'optim.learningRat' (did you mean 'learningRate'?)",
    );
    expect(() => parseConfig("recipe", schema, { optim: { learningRate: 1, beta: 1 } })).toThrow(
      "[recipe] expected a known key, got 'optim.beta' (did you mean 'betas'?)",
    );
  });

  it("names the field and what was got", () => {
    expect(() => parseConfig("recipe", schema, { optim: { learningRate: "x" } })).toThrow(
      '[recipe] optim.learningRate: expected number, got "x"',
    );
  });
});
