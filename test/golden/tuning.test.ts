/**
 * 50 steps of tuning against TRL and PEFT on the same data, from the same weights: losses of SFT, LoRA, DPO and IPO, and the very batches they
 * saw. Packed rows, padded rows and every recompute policy give one loss. Fixtures: test/fixtures/generate/adapters.py.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readTuningData } from "../../src/data/index.ts";
import type { TuningExample } from "../../src/data/index.ts";
import { openDevice } from "../../src/device/index.ts";
import type { Device } from "../../src/device/index.ts";
import {
  Decoder,
  loadAdapter,
  loadModelFolder,
  loadModelWeights,
  modelFamily,
  readModelFolderConfig,
} from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";
import type { Tokenizer } from "../../src/text/index.ts";
import {
  AdamW,
  evaluateLoss,
  ignoreIndex,
  PreferenceStep,
  TrainingRun,
  TuningRows,
} from "../../src/train/index.ts";
import type { LoopOptions, PreferenceObjective, TuningBatchOptions } from "../../src/train/index.ts";

const fixture = (name: string): string =>
  fileURLToPath(new URL(`../fixtures/adapters/${name}`, import.meta.url));
interface Batch {
  input_ids: number[][];
  labels?: number[][];
  completion_mask?: number[][];
}
const golden = JSON.parse(readFileSync(fixture("curves.json"), "utf8")) as {
  rows: { prompt: string; chosen: string; rejected: string }[];
  curves: Record<"sft" | "lora" | "dpo" | "ipo", number[]>;
  batches: Record<"sft" | "dpo", Batch[]>;
};

let device: Device;
let context: Context;
let scratch: string;
let liveBytesBefore: number;
beforeAll(async () => {
  device = await openDevice({ kind: "cpu" });
  context = new Context(device);
  liveBytesBefore = device.memory().liveBytes;
  scratch = mkdtempSync(join(tmpdir(), "nautilus-tuning-"));
});
afterAll(() => {
  expect(device.memory().liveBytes).toBe(liveBytesBefore);
  device.dispose();
  rmSync(scratch, { recursive: true });
});

/** Words w3 … w63 and the end of text, as the fixture's tokenizer has them. */
const tokenizer: Tokenizer = {
  vocabSize: 64,
  bosId: 1,
  eosId: 2,
  padId: 2,
  unkId: 0,
  specialTokens: new Map(),
  encode: (text) => Int32Array.from(text.split(" ").filter(Boolean), (word) => Number(word.slice(1))),
  encodeBytes: () => new Int32Array(),
  decode: (ids) => Array.from(ids, (id) => `w${id}`).join(" "),
  decodeBytes: () => new Uint8Array(),
  createDecoder: () => ({ push: () => "", flush: () => "" }),
  idOf: () => undefined,
  pieceOf: (id) => `w${id}`,
};

function examplesOf(kind: "text" | "preference"): TuningExample[] {
  const file = join(scratch, `${kind}.jsonl`);
  const lines = golden.rows.map(({ prompt, chosen, rejected }) =>
    JSON.stringify(kind === "text" ? { prompt, completion: chosen } : { prompt, chosen, rejected }),
  );
  writeFileSync(file, lines.join("\n"));
  return readTuningData([file], {
    tokenizer,
    promptTemplate: "{input} {output}",
    chat: "nemotron",
    addBos: false,
    addEos: true,
    answerOnly: true,
    maxLength: 64,
    cut: "left",
  }).examples;
}

const rowOptions: TuningBatchOptions = {
  length: 64,
  packing: false,
  sharePrompts: false,
  seed: 1,
  shuffle: false,
  padId: 2,
  prefix: [],
};
const objective: PreferenceObjective = {
  kind: "dpo",
  beta: 0.1,
  labelSmoothing: 0,
  sftWeight: 0,
  eta: 1,
  desirableWeight: 1,
  undesirableWeight: 1,
};
const numSteps = golden.curves.sft.length;
const batchSize = 2;

/** Losses of all steps, one row an example. */
async function curve(
  name: keyof typeof golden.curves,
  {
    lr,
    recompute = "none",
    ...rows
  }: { lr: number; recompute?: LoopOptions["recompute"]; packing?: boolean; sharePrompts?: boolean },
): Promise<number[]> {
  const isFull = name === "sft";
  const isPreference = name === "dpo" || name === "ipo";
  using decoder = new Decoder(context, readModelFolderConfig(fixture("base")), {
    dtype: "f32",
    gradientDtype: isFull ? "f32" : undefined,
  });
  loadModelWeights(context, decoder, fixture("base"));
  const family = modelFamily(decoder.config);
  using adapter = isFull
    ? undefined
    : loadAdapter(context, decoder, { family, folder: fixture("lora-start"), gradientDtype: "f32" });
  decoder.attach(adapter);
  using optimizer = new AdamW(context, adapter?.parameters ?? decoder.parameters, {
    betas: [0.9, 0.98],
    eps: 1e-8,
    weightDecay: 0.01,
    clip: 1,
    moments: "f32",
    master: false,
  });
  const data = new TuningRows(examplesOf(isPreference ? "preference" : "text"), { ...rowOptions, ...rows });
  const losses: number[] = [];
  const preference = {
    decoder,
    optimizer,
    adapter,
    objective: { ...objective, kind: name === "ipo" ? name : "dpo" },
    recompute,
  } as const;
  const run = new TrainingRun(
    context,
    {
      decoder,
      optimizer,
      data,
      ...(isPreference ? { makeStep: () => new PreferenceStep(context, preference) } : {}),
    },
    {
      options: {
        schedule: { lr, minLr: lr, warmupTokens: 0, decayFraction: 1 },
        batches: { batchTokens: batchSize * rowOptions.length, ramp: [] },
        totalTokens: numSteps * batchSize * rowOptions.length,
        sequenceLength: rowOptions.length,
        microBatchSequences: batchSize,
        recompute,
        seed: 1,
        spikeFactor: 0,
        maxSkippedSteps: 1,
        evaluateEverySteps: 0,
        checkpointEverySteps: 0,
      },
      events: { stepEnd: ({ loss }) => losses.push(loss) },
    },
  );
  await run.run();
  return losses;
}

function largestGap(got: readonly number[], expected: readonly number[]): number {
  expect(got.length).toBe(expected.length);
  return got.reduce(
    (most, loss, step) => Math.max(most, Math.abs(loss - expected[step]) / expected[step]),
    0,
  );
}

describe("batches", () => {
  it("have TRL's tokens and targets", () => {
    const sft = new TuningRows(examplesOf("text"), rowOptions);
    const dpo = new TuningRows(examplesOf("preference"), rowOptions);
    for (const [step, { input_ids: ids, labels = [] }] of golden.batches.sft.entries()) {
      const { tokens, targets } = sft.batch(step * batchSize, batchSize);
      expect([...tokens]).toEqual(ids.flat());
      expect([...targets]).toEqual(labels.flatMap((row) => [...row.slice(1), ignoreIndex]));
    }
    for (const [step, { input_ids: ids, completion_mask: mask = [] }] of golden.batches.dpo.entries()) {
      const { tokens, targets, preference } = dpo.batch(step * batchSize, batchSize);
      // TRL has all chosen texts first, we have the two texts of a pair together.
      const order = [0, 2, 1, 3];
      expect([...tokens]).toEqual(order.flatMap((row) => ids[row]));
      const wanted = order.flatMap((row) => [
        ...ids[row].slice(1).map((id, i) => (mask[row][i + 1] === 1 ? id : ignoreIndex)),
        ignoreIndex,
      ]);
      expect([...targets]).toEqual(wanted);
      expect(preference?.pairs.map(({ chosen, rejected }) => [chosen, rejected])).toEqual([
        [0, 1],
        [2, 3],
      ]);
    }
  });
});

describe("50 steps as TRL and PEFT run them", () => {
  it("SFT of all weights", async () => {
    expect(largestGap(await curve("sft", { lr: 2e-3 }), golden.curves.sft)).toBeLessThan(1e-4);
  });
  it.each(["none", "norm-activation", "block"] as const)("LoRA, recomputing %s", async (recompute) => {
    expect(largestGap(await curve("lora", { lr: 5e-3, recompute }), golden.curves.lora)).toBeLessThan(1e-4);
  });
  it("DPO with the adapter off as the reference; its first loss is ln 2", async () => {
    const losses = await curve("dpo", { lr: 5e-3 });
    expect(losses[0]).toBe(Math.LN2);
    expect(largestGap(losses, golden.curves.dpo)).toBeLessThan(1e-4);
  });
  it("DPO on pairs that share the rows of their prompt", async () => {
    const sharing = { packing: true, sharePrompts: true };
    const data = new TuningRows(examplesOf("preference"), { ...rowOptions, ...sharing });
    expect(data.batch(0, batchSize).rowOfToken).toBeDefined();
    const losses = await curve("dpo", { lr: 5e-3, ...sharing });
    expect(losses[0]).toBe(Math.LN2);
    expect(largestGap(losses, golden.curves.dpo)).toBeLessThan(1e-4);
  });
  it("IPO", async () => {
    expect(largestGap(await curve("ipo", { lr: 5e-3 }), golden.curves.ipo)).toBeLessThan(1e-4);
  });
});

describe("packing", () => {
  it("gives the loss of padded rows, with virtual tokens too", () => {
    using decoder = loadModelFolder(context, fixture("base"), "f32");
    const examples = examplesOf("text").slice(0, 20);
    for (const folder of [undefined, "prompt"]) {
      using adapter =
        folder === undefined
          ? undefined
          : loadAdapter(context, decoder, { family: modelFamily(decoder.config), folder: fixture(folder) });
      decoder.attach(adapter);
      const prefix = Array.from(
        { length: adapter?.numVirtualTokens ?? 0 },
        (_, i) => decoder.config.vocabSize + i,
      );
      const loss = (packing: boolean): { loss: number; numTargets: number } => {
        const rows = new TuningRows(examples, { ...rowOptions, packing, prefix });
        if (packing) expect(rows.rowsPerEpoch).toBeLessThan(examples.length / 2);
        return evaluateLoss(context, decoder, rows.all(packing ? 2 : 7));
      };
      const [packed, padded] = [loss(true), loss(false)];
      expect(packed.numTargets).toBe(padded.numTargets);
      expect(Math.abs(packed.loss - padded.loss)).toBeLessThan(1e-6);
      decoder.attach(undefined);
    }
  });
});
