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

  it("names the place of a key that was written one level too high", () => {
    expect(() => parseConfig("recipe", schema, { betas: [1] })).toThrow("(did you mean 'optim.betas'?)");
    const named = z.strictObject({
      steps: z.number(),
      goal: z.union([z.string(), z.strictObject({ step: z.number() })]).default("plain"),
    });
    expect(() => parseConfig("recipe", named, { step: 1 })).toThrow("(did you mean 'goal.step'?)");
  });

  it("names the field and what was got", () => {
    expect(() => parseConfig("recipe", schema, { optim: { learningRate: "x" } })).toThrow(
      '[recipe] optim.learningRate: expected number, got "x"',
    );
  });

  it("says bounds in words", () => {
    const bounds = z.strictObject({
      share: z.number().max(1).optional(),
      count: z.number().int().positive().optional(),
      names: z.array(z.string()).min(1).optional(),
    });
    const messageFor = (value: unknown): (() => unknown) => {
      return () => parseConfig("sampling", bounds, value);
    };
    expect(messageFor({ share: 3 })).toThrow("[sampling] share: expected a number <=1, got 3");
    expect(messageFor({ count: 0 })).toThrow("[sampling] count: expected a number >0, got 0");
    expect(messageFor({ count: 0.5 })).toThrow("[sampling] count: expected a whole number, got 0.5");
    expect(messageFor({ names: [] })).toThrow("[sampling] names: expected a list of >=1 items, got []");
  });

  it("says what kinds there are of a field", () => {
    const form = z.discriminatedUnion("type", [
      z.strictObject({ type: z.literal("text") }),
      z.strictObject({ type: z.literal("json") }),
    ]);
    expect(() => parseConfig("chat", z.strictObject({ form }), { form: { type: "xml" } })).toThrow(
      "[chat] form.type: expected one of 'text' | 'json', got \"xml\"",
    );
  });

  it("says what each form of a field wants that has several", () => {
    const ids = z.array(z.number()).min(1);
    const prompts = z.strictObject({ prompt: z.union([z.string(), ids, z.array(ids).min(1)]) });
    const messageFor = (prompt: unknown): (() => unknown) => {
      return () => parseConfig("completions", prompts, { prompt });
    };
    expect(messageFor([])).toThrow("prompt: expected string or a list of >=1 items, got []");
    expect(messageFor({})).toThrow("prompt: expected string or array, got {}");
    expect(messageFor([1, "a"])).toThrow(
      "prompt: expected string or number at '1' or array at '0', got [1,\"a\"]",
    );
  });
});
