/**
 * Texts that share the rows of their prompt give what they give apart: losses, every gradient and an optimizer step, on every device, for
 * pairs and for KTO, with adapters and with all weights trained, under every recompute policy.
 */
import { expect, it } from "vitest";
import { invariant } from "../../src/base/index.ts";
import type { EncodedText, TuningExample } from "../../src/data/index.ts";
import {
  adaptedProjections,
  adapterMemory,
  createAdapter,
  Decoder,
  modelFamily,
  parseAdapterConfig,
} from "../../src/models/index.ts";
import type { AdapterConfigInput } from "../../src/models/index.ts";
import { Context, Tape } from "../../src/tensor/index.ts";
import type { RecomputePolicy } from "../../src/tensor/index.ts";
import { AdamW, batchOf, ignoreIndex, PreferenceStep, TuningRows } from "../../src/train/index.ts";
import type { HostBatch, PreferenceMeasures, PreferenceObjective } from "../../src/train/index.ts";
import { uploadBatch } from "../../src/train/step.ts";
import { openOrSkip } from "../open-device.ts";
import { tinyConfig } from "../tiny-model.ts";

const drawn = (length: number, seed: number): number[] =>
  Array.from({ length }, (_, i) => (7 + seed * 13 + i * i * (seed + 3)) % tinyConfig.vocabSize);

function text(prompt: readonly number[], answer: readonly number[]): EncodedText {
  return {
    tokens: Int32Array.of(...prompt, ...answer),
    isTrained: Uint8Array.from([...prompt.map(() => 0), ...answer.map(() => 1)]),
    numCutAnswer: 0,
    numCutPrompt: 0,
  };
}

const place = { file: "pairs.jsonl", line: 1 };
/** Prompts and their answers: two of different lengths, one of a token alone, two that begin alike. */
const answered = [
  { prompt: drawn(9, 1), answers: [drawn(5, 2), drawn(7, 3)] },
  { prompt: drawn(4, 4), answers: [drawn(11, 5), [2]] },
  {
    prompt: drawn(12, 6),
    answers: [
      [20, 21, 22, 23],
      [20, 21, 30, 31, 32],
    ],
  },
] as const;
const pairs: readonly TuningExample[] = [
  ...answered.map(({ prompt, answers: [chosen, rejected] }) => ({
    ...place,
    kind: "preference" as const,
    chosen: text(prompt, chosen),
    rejected: text(prompt, rejected),
  })),
  // Without a common beginning.
  {
    ...place,
    kind: "preference",
    chosen: text(drawn(5, 7), drawn(3, 8)),
    rejected: text(drawn(6, 9), drawn(4, 10)),
  },
];
const unpaired: readonly TuningExample[] = answered.map(({ prompt, answers }, index) => ({
  ...place,
  kind: "unpaired",
  text: text(prompt, answers[index % 2]),
  isDesirable: index % 2 === 0,
}));

interface Setting {
  name: string;
  /** Absent: all weights are trained, against a reference measured before. */
  method?: AdapterConfigInput;
  kind?: PreferenceObjective["kind"];
  recompute?: RecomputePolicy;
  dtype?: "f32" | "bf16";
}

const lora: AdapterConfigInput = { method: "lora", rank: 4, targets: "all-linear" };
const settings: readonly Setting[] = [
  { name: "DPO, LoRA", method: lora },
  {
    name: "DPO, LoRA, normalised rows and activations made again",
    method: lora,
    recompute: "norm-activation",
  },
  { name: "DPO, LoRA, blocks made again", method: lora, recompute: "block" },
  { name: "DPO, LoRA in bf16", method: lora, dtype: "bf16" },
  { name: "DPO, Houlsby's adapters", method: { method: "houlsby", dim: 4 } },
  { name: "DPO, virtual tokens", method: { method: "prompt-tuning", numTokens: 3 } },
  { name: "IPO, LoRA", method: lora, kind: "ipo" },
  { name: "KTO, LoRA", method: lora, kind: "kto" },
  { name: "DPO, all weights" },
  { name: "DPO, all weights, blocks made again", recompute: "block" },
];

interface StepValues {
  numRows: number;
  first: PreferenceMeasures;
  gradients: Float64Array[];
  weights: Float64Array[];
  /** On the same texts after the step. */
  second: PreferenceMeasures;
}

/** One optimizer step on all the texts. */
function stepOf(
  context: Context,
  { method, kind = "dpo", recompute = "none", dtype = "f32" }: Setting,
  sharePrompts: boolean,
): StepValues {
  using decoder = new Decoder(context, tinyConfig, {
    dtype,
    gradientDtype: method === undefined ? dtype : undefined,
  });
  decoder.parameters.initialise(11);
  using adapter =
    method &&
    createAdapter(decoder, {
      family: modelFamily(tinyConfig),
      config: parseAdapterConfig(method),
      dtype,
      gradientDtype: dtype,
    });
  adapter?.initialise(context, 7);
  const parameters = adapter?.parameters ?? decoder.parameters;
  // Off the neutral start, where half of the gradients are zero.
  for (const parameter of adapter?.parameters ?? [])
    parameter.set(parameter.toArray().map((value, i) => value + 0.1 * Math.sin(i + parameter.numElements)));
  decoder.attach(adapter);
  // A large eps, so that an update does not hang on the sign of a gradient near zero.
  using optimizer = new AdamW(context, parameters, {
    betas: [0.9, 0.98],
    eps: 1e-2,
    weightDecay: 0.01,
    clip: 1,
    moments: "f32",
    master: true,
  });
  optimizer.resetMasters(context);
  using step = new PreferenceStep(context, {
    decoder,
    optimizer,
    adapter,
    recompute,
    // Two chunks of the loss and more.
    chunkBytes: 24 * tinyConfig.vocabSize * 4,
    objective: {
      kind,
      beta: 0.5,
      labelSmoothing: 0,
      sftWeight: 0.1,
      eta: 1,
      desirableWeight: 1,
      undesirableWeight: 1,
    },
  });
  const examples = kind === "kto" ? unpaired : pairs;
  const data = new TuningRows(examples, {
    length: 64,
    packing: true,
    sharePrompts,
    seed: 1,
    shuffle: false,
    padId: 2,
    prefix: Array.from({ length: adapter?.numVirtualTokens ?? 0 }, (_, i) => tinyConfig.vocabSize + i),
  });
  if (method === undefined) data.precomputeReference((batch) => step.referenceOf(batch), examples.length);
  const batch = data.batch(0, examples.length);
  step.run([batch], { step: 1, learningRate: 0.05, seed: 1, skipAboveNorm: 0 }).wait();
  const first = step.measures;
  invariant(first !== undefined, "a step has measures");
  const values = {
    numRows: batch.tokens.length,
    first,
    gradients: [...parameters].map(({ gradient }) => gradient?.toArray() ?? new Float64Array()),
    weights: [...parameters].map((parameter) => parameter.toArray()),
    second: step.measure([batch]),
  };
  decoder.attach(undefined);
  return values;
}

/** Largest difference, relative to the largest magnitude of the expected values. */
function relativeError(got: readonly Float64Array[], expected: readonly Float64Array[]): number {
  let scale = 0;
  let worst = 0;
  for (const [index, values] of expected.entries())
    for (const [i, value] of values.entries()) {
      scale = Math.max(scale, Math.abs(value));
      worst = Math.max(worst, Math.abs(got[index][i] - value));
    }
  expect(scale).toBeGreaterThan(1e-3);
  return worst / scale;
}

const onEveryDevice = (["reference", "cpu", "cuda"] as const).flatMap((device) =>
  settings.map((setting) => ({ device, ...setting })),
);

it.for(onEveryDevice)("$name, on $device", async ({ device: kind, ...setting }, test) => {
  using device = await openOrSkip(kind, test);
  const context = new Context(device);
  const liveBytes = device.memory().liveBytes;
  const apart = stepOf(context, setting, false);
  const shared = stepOf(context, setting, true);
  expect(device.memory().liveBytes).toBe(liveBytes);
  expect(shared.numRows).toBeLessThan(apart.numRows);
  // A row that two texts share adds up their gradients, and is rounded, before the products that are made of it once.
  const tolerance = setting.dtype === "bf16" ? 2 ** -5 : 2e-5;
  for (const pass of ["first", "second"] as const)
    for (const measure of ["loss", "margin"] as const)
      expect(Math.abs(shared[pass][measure] - apart[pass][measure])).toBeLessThan(tolerance);
  expect(relativeError(shared.gradients, apart.gradients)).toBeLessThan(tolerance);
  expect(relativeError(shared.weights, apart.weights)).toBeLessThan(tolerance);
});

it("shares the rows before the first target, and no row where too few would be saved", () => {
  const options = { length: 64, packing: true, sharePrompts: true, padId: 2, prefix: [64, 65] };
  const tokensOf = ({ tokens, rowOfToken }: HostBatch): number[] =>
    Array.from(rowOfToken ?? tokens.keys(), (row) => tokens[row]);
  const shared = batchOf(pairs, options);
  const apart = batchOf(pairs, { ...options, sharePrompts: false });
  const numTokens = pairs.reduce(
    (total, example) =>
      total +
      (example.kind === "preference" ? example.chosen.tokens.length + example.rejected.tokens.length : 0),
    4 * pairs.length,
  );
  // Two virtual tokens and all of a prompt but its last token, which has a target of its own in each text.
  const numSaved = answered.reduce((total, { prompt }) => total + 2 + prompt.length - 1, 2);
  expect(shared.tokens.length).toBe(Math.ceil((numTokens - numSaved) / 16) * 16);
  expect(shared.rowOfToken?.length).toBe(shared.tokens.length + numSaved);
  expect(apart.rowOfToken).toBeUndefined();
  expect(tokensOf(shared).slice(0, numTokens)).toEqual(tokensOf(apart).slice(0, numTokens));
  const long: TuningExample = {
    ...place,
    kind: "preference",
    chosen: text([3, 4, 5], drawn(50, 1)),
    rejected: text([3, 4, 5], drawn(50, 2)),
  };
  expect(batchOf([long], { ...options, prefix: [] }).rowOfToken).toBeUndefined();
  expect(batchOf([long], { ...options, packing: false }).rowOfToken).toBeUndefined();
});

it.each([true, false])(
  "cuts the answer that KTO puts after another prompt where a text may end, sharing %s",
  (sharePrompts) => {
    const [long, short] = [drawn(17, 1), drawn(3, 2)];
    const given = [
      { ...place, kind: "unpaired" as const, text: text(long, short), isDesirable: true },
      { ...place, kind: "unpaired" as const, text: text(short, long), isDesirable: false },
    ];
    const prefix = [64, 65];
    const options = { length: prefix.length + 20, packing: true, sharePrompts, padId: 2, prefix };
    const { base, ...batch } = batchOf(given, options);
    invariant(base !== undefined, "the base reads no virtual tokens");
    const sequencesOf = ({ tokens, rowOfToken, cuSeqLens = new Int32Array() }: HostBatch): number[][] => {
      const all = Array.from(rowOfToken ?? tokens.keys(), (row) => tokens[row]);
      return Array.from(cuSeqLens.subarray(1), (end, i) => all.slice(cuSeqLens[i], end));
    };
    const texts = [
      [...long, ...short],
      [...short, ...long],
      [...long, ...long.slice(0, 3)],
      [...short, ...short],
    ];
    const byText = (sequences: number[][]): string[] =>
      sequences.map((tokens) => tokens.join(" ")).toSorted();
    const expected = (before: readonly number[]): string[] =>
      byText(texts.map((tokens) => [...before, ...tokens]));
    // After the texts there is only padding.
    expect(byText(sequencesOf(batch).slice(0, 4))).toEqual(expected(prefix));
    expect(byText(sequencesOf(base).slice(0, 4))).toEqual(expected([]));
    const positions = [batch, base].map((each) => Math.max(...(each.positions ?? [])));
    expect(positions).toEqual([21, 19]);
  },
);

it.for(["none", "norm-activation", "block"] as const)(
  "takes the memory that is estimated, recomputing %s",
  async (recompute, test) => {
    using device = await openOrSkip("cpu", test);
    const context = new Context(device);
    const config = { ...tinyConfig, width: 128, ffnWidth: 384, headDim: 32, numLayers: 6, maxPositions: 512 };
    const [prompt, chosen, rejected] = [drawn(300, 1), drawn(100, 2), drawn(80, 3)];
    const pair: TuningExample = {
      ...place,
      kind: "preference",
      chosen: text(prompt, chosen),
      rejected: text(prompt, rejected),
    };
    using decoder = new Decoder(context, config, { dtype: "f32" });
    decoder.parameters.initialise(1);
    const adapted = { family: modelFamily(config), config: parseAdapterConfig(lora) };
    using adapter = createAdapter(decoder, { ...adapted, dtype: "f32", gradientDtype: "f32" });
    adapter.initialise(context, 1);
    decoder.attach(adapter);
    const chunkBytes = 2 ** 14;
    const measure = (sharePrompts: boolean): { peak: number; estimate: number } => {
      const batch = batchOf([pair], { length: 400, packing: true, sharePrompts, padId: 2, prefix: [] });
      device.resetPeakMemory();
      context.scope(() => {
        using tape = new Tape(recompute);
        const { sequences, ...targets } = uploadBatch(context, batch);
        context.withTape(tape, () =>
          decoder.loss(context, sequences, { ...targets, ignoreIndex, chunkBytes }),
        );
        tape.backward(context);
      });
      const { optimizer, total } = adapterMemory(config, {
        dtype: "f32",
        gradientDtype: "f32",
        moments: "f32",
        recompute,
        numTrained: adapter.numParameters,
        adapted: adaptedProjections(config, adapted),
        numRows: batch.tokens.length,
        numTokens: batch.rowOfToken?.length,
        chunkBytes,
      });
      return { peak: device.memory().peakLiveBytes, estimate: total - optimizer };
    };
    const apart = measure(false);
    const shared = measure(true);
    decoder.attach(undefined);
    expect(shared.peak).toBeLessThan(0.85 * apart.peak);
    for (const { peak, estimate } of [apart, shared]) {
      expect(estimate / peak).toBeGreaterThan(0.98);
      expect(estimate / peak).toBeLessThan(1.1);
    }
    expect(Math.abs(shared.estimate / shared.peak - apart.estimate / apart.peak)).toBeLessThan(0.03);
  },
);
