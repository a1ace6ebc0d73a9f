/**
 * Steps of tuning with a frozen base: LoRA of rank 16 on the attention and on every matrix, with the base's matrices in NF4 (QLoRA), and
 * DPO with the base as its own reference, against the rate of a large matrix product in the same run, with the peak of memory. Weights are random: the time does not depend on them.
 *
 * usage: node bench/tune.ts [--preset nemotron-10m] [--device cpu|cuda] [--threads N] [--precision f32|bf16] [--length 512] [--rows 8]
 *   [--prompt 1] [--recompute none|norm-activation|block] [--only lora,all-linear,qlora,dpo] [--apart] [--json]
 * `--prompt` is how many of the `--length` tokens of each text of DPO are the prompt, which is the same for both texts of a pair; rates are of the
 * tokens of texts, whatever rows they share. `--apart` computes a pair's prompt twice.
 * on a GPU: node bench/tune.ts --preset nemotron-3-8b --device cuda --precision bf16 --length 4096 --rows 1
 */
import { parseArgs } from "node:util";
import { openDevice } from "../src/device/index.ts";
import {
  countMatmulParameters,
  createAdapter,
  Decoder,
  modelFamily,
  nemotronPreset,
  operationsPerToken,
  parseAdapterConfig,
} from "../src/models/index.ts";
import type { Adapter } from "../src/models/index.ts";
import { formatBytes } from "../src/base/index.ts";
import { Context, matmulInto } from "../src/tensor/index.ts";
import type { QuantisedFormat, RecomputePolicy } from "../src/tensor/index.ts";
import { AdamW, batchOf, ignoreIndex, PreferenceStep, TrainingStep } from "../src/train/index.ts";
import type { HostBatch, StepRunner } from "../src/train/index.ts";

const { values } = parseArgs({
  options: {
    preset: { type: "string", default: "nemotron-10m" },
    device: { type: "string", default: "cpu" },
    threads: { type: "string" },
    precision: { type: "string", default: "f32" },
    length: { type: "string", default: "512" },
    rows: { type: "string", default: "8" },
    prompt: { type: "string", default: "1" },
    apart: { type: "boolean", default: false },
    recompute: { type: "string", default: "none" },
    only: { type: "string", default: "lora,all-linear,qlora,dpo" },
    json: { type: "boolean", default: false },
  },
});
const recompute: RecomputePolicy =
  values.recompute === "block" || values.recompute === "norm-activation" ? values.recompute : "none";
const dtype = values.precision === "bf16" ? "bf16" : "f32";
const config = nemotronPreset(values.preset);
const length = Number(values.length);
const numTexts = Number(values.rows);
const promptLength = Number(values.prompt);
const numSteps = 3;

using device = await openDevice({
  kind: values.device === "cuda" ? "cuda" : "cpu",
  threads: values.threads === undefined ? undefined : Number(values.threads),
});
const context = new Context(device);

/** Best of several runs after one that warms up, in seconds. */
function best(body: () => void): number {
  let seconds = Infinity;
  for (let run = 0; run <= numSteps; run++) {
    const startMs = performance.now();
    body();
    device.synchronize();
    if (run > 0) seconds = Math.min(seconds, (performance.now() - startMs) / 1000);
  }
  return seconds;
}

/** Operations per second of a large product. */
function matmulRate(): number {
  const size = device.kind === "cuda" ? 8192 : 2048;
  return context.scope(() => {
    const [a, b, c] = [0, 1, 2].map((seed) => {
      const x = context.empty([size, size], dtype);
      device.run("randomNormal", { y: x, numElements: size * size, seed, counter: 0, mean: 0, std: 1 });
      return x;
    });
    return (
      (2 * size ** 3) /
      best(() => matmulInto(context, { a, b, c }, { m: size, n: size, k: size, transposeB: true }))
    );
  });
}

/** `numPrompt` tokens that the prompt's seed gives and nothing is learnt of, then an answer. */
function text(seed: number, { numPrompt, promptSeed }: { numPrompt: number; promptSeed: number }) {
  const tokens = Int32Array.from(
    { length },
    (_, i) => ((i + (i < numPrompt ? promptSeed : seed) * 131) * 7919) % config.vocabSize,
  );
  const isTrained = new Uint8Array(length).fill(1, numPrompt);
  return { tokens, isTrained, numCutAnswer: 0, numCutPrompt: 0 };
}

const layout = { length, packing: true, sharePrompts: !values.apart, padId: 0, prefix: [] };
const place = { file: "bench", line: 1 };
const seeds = Array.from({ length: numTexts }, (_, seed) => seed);
const texts: HostBatch = batchOf(
  seeds.map((seed) => ({
    kind: "text" as const,
    ...place,
    text: text(seed, { numPrompt: 1, promptSeed: seed }),
  })),
  layout,
);
/** Half as many pairs: as many texts. */
const pairs: HostBatch = batchOf(
  seeds.slice(0, Math.max(1, numTexts / 2)).map((seed) => {
    const prompt = { numPrompt: promptLength, promptSeed: seed };
    return {
      kind: "preference" as const,
      ...place,
      chosen: text(seed, prompt),
      rejected: text(seed + numTexts, prompt),
    };
  }),
  layout,
);

/** Tokens of a batch's texts: more than its rows, where these are shared. */
const countTokens = ({ tokens, rowOfToken = tokens }: HostBatch): number => rowOfToken.length;

/**
 * Floating-point operations of a step that cannot be spared: no weight gradients of the base; the head for rows with a target; the reference is
 * one more forward pass.
 */
function operations(batch: HostBatch, { numParameters }: Adapter, isCompared: boolean): number {
  const numRows = batch.tokens.length;
  const numTargets = batch.targets.filter((target) => target !== ignoreIndex).length;
  const head = config.vocabSize * config.width;
  const matmuls = 2 * (numRows * (countMatmulParameters(config) - head) + numTargets * head);
  const { forward } = operationsPerToken(config, length);
  const attention = countTokens(batch) * (forward - 2 * countMatmulParameters(config));
  const trained = 2 * matmuls + 3 * attention + 6 * numRows * numParameters;
  return trained + (isCompared ? matmuls + attention : 0);
}

interface Method {
  name: string;
  targets: string;
  isCompared: boolean;
  quantise?: QuantisedFormat;
  /** In place of the command's. */
  recompute?: RecomputePolicy;
}

/** A base with random weights; a quantised matrix is made from a dense one that is gone before the next. */
function randomBase(quantise: QuantisedFormat | undefined): Decoder {
  const decoder = new Decoder(context, config, { dtype, quantise });
  decoder.parameters.initialise(1);
  let seed = 1;
  for (const weight of decoder.quantised.values())
    context.scope(() => {
      const y = context.empty(weight.shape, dtype);
      device.run("randomNormal", {
        y,
        numElements: y.numElements,
        seed: seed++,
        counter: 0,
        mean: 0,
        std: 0.02,
      });
      weight.assign(context, y);
    });
  return decoder;
}

function measure({ name, targets, isCompared, quantise, ...method }: Method) {
  const family = modelFamily(config);
  using decoder = randomBase(quantise);
  using adapter = createAdapter(decoder, {
    family,
    config: parseAdapterConfig({ method: "lora", rank: 16, targets }),
    dtype,
    gradientDtype: dtype,
  });
  adapter.initialise(context, 1);
  decoder.attach(adapter);
  using optimizer = new AdamW(context, adapter.parameters, {
    betas: [0.9, 0.98],
    eps: 1e-8,
    weightDecay: 0.01,
    clip: 1,
    moments: "f32",
    master: true,
  });
  optimizer.resetMasters(context);
  const parts = {
    decoder,
    optimizer,
    adapter,
    recompute: method.recompute ?? recompute,
    chunkBytes: device.kind === "cuda" ? 2 ** 30 : 2 ** 24,
  };
  using step: StepRunner = isCompared
    ? new PreferenceStep(context, {
        ...parts,
        objective: {
          kind: "dpo",
          beta: 0.1,
          labelSmoothing: 0,
          sftWeight: 0,
          eta: 1,
          desirableWeight: 1,
          undesirableWeight: 1,
        },
      })
    : new TrainingStep(context, parts);
  matmul = Math.max(matmul, matmulRate());
  const batch = isCompared ? pairs : texts;
  let count = 0;
  device.resetPeakMemory();
  const seconds = best(() => {
    count++;
    step.run([batch], { step: count, learningRate: 1e-4, seed: 1, skipAboveNorm: 0 }).wait();
  });
  const result = {
    name,
    trained: adapter.numParameters,
    rows: batch.tokens.length,
    tokensPerSecond: countTokens(batch) / seconds,
    operations: operations(batch, adapter, isCompared) / countTokens(batch),
    peakBytes: device.memory().peakLiveBytes,
  };
  decoder.attach(undefined);
  return result;
}

// Other work on the machine slows single measurements: the best product of the whole run is the limit.
let matmul = matmulRate();
const methods: Readonly<Record<string, Method>> = {
  lora: { name: "LoRA r=16, attention", targets: "attention", isCompared: false },
  "all-linear": { name: "LoRA r=16, all-linear", targets: "all-linear", isCompared: false },
  qlora: {
    name: "QLoRA r=16, all-linear, NF4",
    targets: "all-linear",
    isCompared: false,
    quantise: "nf4",
    recompute: "block",
  },
  dpo: { name: "DPO, LoRA r=16, attention", targets: "attention", isCompared: true },
};
const measured = values.only.split(",").map((name) => {
  if (!Object.hasOwn(methods, name))
    throw new Error(`expected --only of ${Object.keys(methods).join(", ")}, got '${name}'`);
  return measure(methods[name]);
});
const results = measured.map(({ operations: perToken, ...result }) => ({
  ...result,
  limit: matmul / perToken,
  share: (result.tokensPerSecond * perToken) / matmul,
}));
if (values.json)
  console.log(
    JSON.stringify(
      {
        device: device.description,
        preset: values.preset,
        length,
        prompt: promptLength,
        dtype,
        matmul,
        results,
      },
      undefined,
      2,
    ),
  );
else {
  console.log(
    `${values.preset}, ${dtype}, ${numTexts} texts of ${length} tokens, of pairs a prompt of ${promptLength}, on ${device.description}; a large product runs at ${(matmul / 1e9).toFixed(0)} GFLOP/s`,
  );
  for (const { name, trained, tokensPerSecond, limit, share, peakBytes } of results)
    console.log(
      `${name.padEnd(28)} ${trained.toLocaleString("en-US").padStart(12)} trained  ${tokensPerSecond.toFixed(0).padStart(7)} tok/s  limit ${limit.toFixed(0).padStart(7)}  share ${(100 * share).toFixed(0)} %  ${formatBytes(peakBytes)} at most`,
    );
}
