/**
 * Save + load + step = step, bit for bit: a run that is stopped anywhere and goes on from its checkpoint ends with the very weights of
 * one that was not, for every kind of optimizer state.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Device } from "../../src/device/index.ts";
import { openDevice } from "../../src/device/index.ts";
import { Context } from "../../src/tensor/index.ts";
import {
  AdamW,
  listCheckpoints,
  loadCheckpoint,
  saveCheckpoint,
  TrainingRun,
} from "../../src/train/index.ts";
import type { LoopOptions, OptimizerConfig, RunState } from "../../src/train/index.ts";
import { randomData, tinyDecoder } from "../tiny-model.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nautilus-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const sequenceLength = 12;
const options: LoopOptions = {
  schedule: { lr: 5e-3, minLr: 5e-4, warmupTokens: 50, decayFraction: 0.95 },
  batches: { batchTokens: 4 * sequenceLength, ramp: [{ untilTokens: 100, batchTokens: 2 * sequenceLength }] },
  totalTokens: 9 * 4 * sequenceLength,
  sequenceLength,
  microBatchSequences: 3,
  recompute: "none",
  seed: 5,
  spikeFactor: 1.4,
  maxSkippedSteps: 10,
  evaluateEverySteps: 0,
  checkpointEverySteps: 0,
};

interface Variant {
  name: string;
  dtype: "f32" | "bf16";
  optimizer: Pick<OptimizerConfig, "moments" | "master">;
}
const variants: readonly Variant[] = [
  { name: "f32", dtype: "f32", optimizer: { moments: "f32", master: false } },
  { name: "bf16 with master", dtype: "bf16", optimizer: { moments: "bf16", master: true } },
  { name: "bf16 with stochastic rounding", dtype: "bf16", optimizer: { moments: "bf16", master: false } },
];

/** Trains from the newest checkpoint, or from the beginning, up to `stopAfter` steps; gives all weights. */
async function train(
  device: Device,
  { dtype, optimizer: states }: Variant,
  run: string,
  stopAfter = Infinity,
): Promise<Uint8Array[]> {
  const context = new Context(device);
  using decoder = tinyDecoder(context, dtype, dtype);
  using optimizer = new AdamW(context, decoder.parameters, {
    betas: [0.9, 0.95],
    eps: 1e-8,
    weightDecay: 0.1,
    clip: 1,
    ...states,
  });
  optimizer.resetMasters(context);
  const newest = listCheckpoints(run).at(-1)?.path;
  const state = newest === undefined ? undefined : loadCheckpoint(context, newest, { decoder, optimizer });
  const stop = new AbortController();
  const training = new TrainingRun(
    context,
    { decoder, optimizer, data: randomData(sequenceLength) },
    {
      options,
      ...(state === undefined ? {} : { state }),
      events: {
        stepEnd: ({ step }) => {
          if (step >= stopAfter) stop.abort();
        },
        checkpoint: (current: RunState) => {
          saveCheckpoint(run, { decoder, optimizer }, { state: current, keep: 2, recipe: {} });
        },
      },
    },
  );
  await training.run(stop.signal);
  return [...decoder.parameters].map((parameter) => parameter.toBytes());
}

describe.each(["reference", "cpu"] as const)("resuming on %s", (kind) => {
  it.each(variants)("is bit-exact: $name", async (variant) => {
    using device = await openDevice({ kind, threads: 2 });
    const liveBytes = device.memory().liveBytes;
    const whole = await train(device, variant, join(folder, "whole"));
    const pieces = join(folder, "pieces");
    for (const stopAfter of [1, 4, 5]) await train(device, variant, pieces, stopAfter);
    const resumed = await train(device, variant, pieces);
    expect(resumed).toEqual(whole);
    expect(device.memory().liveBytes).toBe(liveBytes);
  });
});

describe("checkpoints", () => {
  it("keep the last few and refuse damage by name", async () => {
    using device = await openDevice({ kind: "reference" });
    const run = join(folder, "run");
    for (const stopAfter of [1, 3, 5]) await train(device, variants[0], run, stopAfter);
    const kept = listCheckpoints(run);
    expect(kept.length).toBe(2);
    const path = join(kept[1].path, "optimizer.safetensors");
    const bytes = readFileSync(path);
    bytes[bytes.length - 1] ^= 1;
    writeFileSync(path, bytes);
    await expect(train(device, variants[0], run)).rejects.toThrow(
      /expected optimizer.safetensors in .* with sha256/,
    );
  });
});
