/** Steps on preferences let the device time its products at the first batch of about each size, and never stop for timings at others. */
import { expect, it } from "vitest";
import type { TuningExample } from "../../src/data/index.ts";
import { openDevice } from "../../src/device/index.ts";
import type { Tuning } from "../../src/device/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { AdamW, batchOf, PreferenceStep } from "../../src/train/index.ts";
import { tinyConfig, tinyDecoder } from "../tiny-model.ts";

function pair(length: number): TuningExample {
  const text = (seed: number) => ({
    tokens: Int32Array.from({ length }, (_, i) => (seed + i * 7) % tinyConfig.vocabSize),
    isTrained: new Uint8Array(length).fill(1, 1),
    numCutAnswer: 0,
    numCutPrompt: 0,
  });
  const place = { file: "pairs.jsonl", line: 1 };
  return { ...place, kind: "preference", chosen: text(1), rejected: text(2) };
}

it("asks for timings once for each number of rows between two powers of two", async () => {
  using device = await openDevice({ kind: "cpu" });
  const asked: Tuning[] = [];
  device.withTuning = (tuning, body) => {
    asked.push(tuning);
    return body();
  };
  const context = new Context(device);
  using decoder = tinyDecoder(context, "f32", "f32");
  using optimizer = new AdamW(context, decoder.parameters, {
    betas: [0.9, 0.98],
    eps: 1e-8,
    weightDecay: 0,
    clip: 1,
    moments: "f32",
    master: false,
  });
  using step = new PreferenceStep(context, {
    decoder,
    optimizer,
    adapter: undefined,
    objective: {
      kind: "dpo",
      beta: 0.1,
      labelSmoothing: 0,
      sftWeight: 0,
      eta: 1,
      desirableWeight: 1,
      undesirableWeight: 1,
    },
    recompute: "none",
  });
  // Two texts each: 32, 48, 64, 32 and 96 rows.
  const batches = [16, 24, 32, 15, 48].map((length) =>
    batchOf([pair(length)], { length, packing: true, sharePrompts: true, padId: 0, prefix: [] }),
  );
  expect(batches.map(({ tokens }) => tokens.length)).toEqual([32, 48, 64, 32, 96]);
  for (const [index, batch] of batches.entries())
    step.run([batch], { step: index + 1, learningRate: 0, seed: 1, skipAboveNorm: 0 }).wait();
  expect(asked).toEqual(["all", "none", "all", "none", "none"]);
  step.measure(batches);
  expect(asked.slice(5)).toEqual(["all", "none", "all", "none", "none"]);
});
