/** Reference: penalties and draws against probabilities worked out by hand. */
import { describe, expect, it } from "vitest";
import { placeTensor, readTensor } from "../../../test/host-tensors.ts";
import { philox } from "../../base/index.ts";
import { createReferenceDevice } from "./index.ts";
import { drawToken, type DrawOptions } from "./sampling.ts";

/** Logits of the given probabilities. */
const logitsOf = (probabilities: readonly number[]): Float64Array =>
  Float64Array.from(probabilities, Math.log);

/** Tokens in the order of their first uniform number, by steps of a hundredth. */
function drawn(probabilities: readonly number[], options: Partial<DrawOptions>): string {
  const base = { temperature: 1, topK: 0, topP: 1, minP: 0 };
  const steps = Array.from({ length: 100 }, (_, i) =>
    drawToken(logitsOf(probabilities), { ...base, ...options, uniform: (i + 0.5) / 100 }),
  );
  const counts = probabilities.map((_, token) => steps.filter((step) => step === token).length);
  expect(steps).toEqual(steps.toSorted((a, b) => a - b));
  return counts.join(" ");
}

describe("drawing a token", () => {
  it("follows the probabilities, in token order", () => {
    expect(drawn([0.2, 0.5, 0.3], {})).toBe("20 50 30");
  });

  it("divides logits by the temperature", () => {
    // Square roots of 0.04, 0.16, 0.16 are 0.2, 0.4, 0.4.
    expect(drawn([0.04, 0.16, 0.16], { temperature: 2 })).toBe("20 40 40");
  });

  it("takes the first of the highest at temperature 0 or topK 1", () => {
    expect(drawn([0.2, 0.4, 0.4], { temperature: 0 })).toBe("0 100 0");
    expect(drawn([0.2, 0.4, 0.4], { topK: 1 })).toBe("0 100 0");
  });

  it("keeps the topK highest, and the equals of the last of them", () => {
    expect(drawn([0.1, 0.4, 0.2, 0.3], { topK: 2 })).toBe("0 57 0 43");
    expect(drawn([0.25, 0.3, 0.2, 0.25], { topK: 2 })).toBe("31 38 0 31");
  });

  it("keeps the fewest whose probability reaches topP", () => {
    expect(drawn([0.1, 0.4, 0.2, 0.3], { topP: 0.65 })).toBe("0 57 0 43");
    expect(drawn([0.1, 0.4, 0.2, 0.3], { topP: 0.75 })).toBe("0 44 23 33");
    expect(drawn([0.1, 0.4, 0.2, 0.3], { topP: 0.39 })).toBe("0 100 0 0");
    expect(drawn([0.1, 0.4, 0.2, 0.3], { topP: 0 })).toBe("10 40 20 30");
  });

  it("counts topP's probability among what topK kept", () => {
    // Of the three kept, 4/9 + 3/9 reach 0.75; of all four, 0.4 + 0.3 would not.
    expect(drawn([0.1, 0.4, 0.2, 0.3], { topK: 3, topP: 0.75 })).toBe("0 57 0 43");
  });

  it("keeps what has minP times the highest probability", () => {
    expect(drawn([0.1, 0.4, 0.2, 0.3], { minP: 0.49 })).toBe("0 44 23 33");
    expect(drawn([0.1, 0.4, 0.2, 0.3], { minP: 1 })).toBe("0 100 0 0");
  });
});

describe("sample and applyPenalties", () => {
  const device = createReferenceDevice();
  const tensor = placeTensor.bind(undefined, device);

  it("draw with the Philox word of (seed, counter), and give the log probability before temperature and cuts", () => {
    const probabilities = [0.25, 0.5, 0.25];
    const uniform = (philox(2 ** 40 + 3, 2 ** 33 + 1)[0] >>> 8) / 2 ** 24;
    const expected = uniform < 0.25 ? 0 : uniform < 0.75 ? 1 : 2;
    const tokens = tensor("i32", [-1, -1]);
    const logprobs = tensor("f32", [0, 0]);
    device.run("sample", {
      logits: tensor("f32", [...logitsOf(probabilities), ...logitsOf(probabilities)]),
      temperature: tensor("f32", [1, 0]),
      topK: tensor("i32", [0, 0]),
      topP: tensor("f32", [1, 1]),
      minP: tensor("f32", [0, 0]),
      seeds: tensor("i64", [2 ** 40 + 3, 0]),
      counters: tensor("i64", [2 ** 33 + 1, 0]),
      tokens,
      logprobs,
      numRows: 2,
      vocabSize: 3,
    });
    expect(readTensor(tokens)).toEqual([expected, 1]);
    expect(readTensor(logprobs)[1]).toBeCloseTo(Math.log(0.5), 6);
  });

  it("penalise what occurred, by sign and by count", () => {
    const logits = tensor("f32", [2, -2, 1, 0, 2, -2, 1, 0]);
    device.run("applyPenalties", {
      logits,
      history: tensor("i32", [0, 1, 1, 9, 3, 3, 3, 3]),
      historyLengths: tensor("i32", [3, 0]),
      repetition: tensor("f32", [2, 2]),
      presence: tensor("f32", [0.5, 0.5]),
      frequency: tensor("f32", [0.25, 0.25]),
      numRows: 2,
      vocabSize: 4,
      maxHistory: 4,
    });
    expect(readTensor(logits)).toEqual([2 / 2 - 0.75, -2 * 2 - 1, 1, 0, 2, -2, 1, 0]);
  });
});
