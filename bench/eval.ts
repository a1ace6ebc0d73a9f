/**
 * Evaluation with random weights: how long MMLU (five shots) and HellaSwag take, at how many rows a second the engine reads what its
 * cache does not have, what share of the rate of fresh prompts in the same run that is, and how many rows it reads beyond those that any
 * reading needs (each distinct beginning once). Needs the data sets.
 *
 * usage: node bench/eval.ts --data FOLDER [--preset nemotron-10m|nemotron-3-8b] [--device cpu|cuda|pretend] [--precision f32|bf16] [--limit N]
 *        [--tasks mmlu,hellaswag] [--tokenizer FOLDER] [--head tokenizer|model] [--step-rows N] [--cache-tokens N] [--pretend-rate ROWS] [--json]
 *
 * "pretend" computes nothing and takes as long as a device that reads --pretend-rate rows a second: counts are those of the device, and
 * what the host cannot hide shows. --limit N scores N samples of each task, of MMLU's subjects each. --head model (the default on cuda):
 * scored rows go through the head for the model's whole vocabulary, not the tokenizer's alone, as with a tokenizer of that size.
 */
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { RandomStream } from "../src/base/index.ts";
import { openDevice } from "../src/device/index.ts";
import { DataStore, evaluate, TaskRegistry } from "../src/eval/index.ts";
import { createEngine, defaultBlockSize, EngineCore, EngineLanguageModel } from "../src/infer/index.ts";
import type { Engine } from "../src/infer/index.ts";
import { Decoder, nemotronPreset } from "../src/models/index.ts";
import { Context } from "../src/tensor/index.ts";
import { loadTokenizer } from "../src/text/index.ts";
import type { Tokenizer } from "../src/text/index.ts";
import { RecordingEngine } from "./distinctPrefixes.ts";
import { PretendClock, PretendRunner } from "./pretendRunner.ts";

const { values } = parseArgs({
  options: {
    data: { type: "string", default: "eval-data" },
    preset: { type: "string", default: "nemotron-10m" },
    device: { type: "string", default: "cpu" },
    precision: { type: "string", default: "bf16" },
    limit: { type: "string" },
    tasks: { type: "string", default: "mmlu,hellaswag" },
    tokenizer: {
      type: "string",
      default: fileURLToPath(new URL("../demo/nautilus-demo-20m", import.meta.url)),
    },
    head: { type: "string" },
    "step-rows": { type: "string" },
    "cache-tokens": { type: "string" },
    "pretend-rate": { type: "string", default: "44450" },
    json: { type: "boolean", default: false },
  },
});

const isPretended = values.device === "pretend";
const isGpu = isPretended || values.device === "cuda";
const maxContext = 4096;
const cacheTokens = Number(values["cache-tokens"] ?? (isGpu ? 131_072 : 65_536));
const maxStepRows = Number(values["step-rows"] ?? (isGpu ? 4096 : 512));
const tokenizer = openTokenizer();
const store = new DataStore({ folders: [values.data] });
const registry = new TaskRegistry();
/** Samples of the published sets: the data at hand may hold fewer. */
const publishedSamples: Readonly<Record<string, number>> = { mmlu: 14_042, hellaswag: 10_042 };

const clock = new PretendClock();
const now = isPretended ? () => clock.now() : () => performance.now();

function print(text: string): void {
  if (!values.json) process.stdout.write(`${text}\n`);
}

using device = await openDevice({ kind: values.device === "cuda" ? "cuda" : "cpu" });
const context = new Context(device);
using decoder = isPretended ? undefined : openDecoder();

function openTokenizer(): Tokenizer {
  const own = loadTokenizer(values.tokenizer);
  if (isPretended || (values.head ?? (isGpu ? "model" : "tokenizer")) === "tokenizer") return own;
  const { vocabSize } = nemotronPreset(values.preset);
  return new Proxy(own, {
    get(target, name) {
      if (name === "vocabSize") return vocabSize;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

function openDecoder(): Decoder {
  const config = { ...nemotronPreset(values.preset), maxPositions: maxContext };
  const opened = new Decoder(context, config, { dtype: values.precision === "f32" ? "f32" : "bf16" });
  opened.parameters.initialise(1);
  return opened;
}

/** Each run has an engine, and so a cache, of its own. */
function newEngine(): Engine {
  if (decoder !== undefined)
    return createEngine(context, decoder, {
      tokenizer,
      endTokens: [tokenizer.eosId],
      cacheTokens,
      maxStepRows,
    });
  const scheduler = {
    numBlocks: Math.floor(cacheTokens / defaultBlockSize),
    blockSize: defaultBlockSize,
    maxStepRows,
    maxSequences: 256,
  };
  const { vocabSize } = tokenizer;
  const held = { dtype: "none", quantise: null, kvCache: "none" };
  const info = { vocabSize, width: 1, numParameters: 0, ...held, device: "none", adapters: [] };
  return new EngineCore({
    runner: new PretendRunner(clock, Number(values["pretend-rate"])),
    tokenizer,
    info: { ...info, maxContext },
    scheduler,
    endTokens: [],
  });
}

/** Rows a second of prompts that nothing is known of, scored at their last token. */
async function prefillRate(): Promise<number> {
  await using engine = newEngine();
  const model = new EngineLanguageModel(engine, { name: "random", tokenizer });
  const random = new RandomStream(7);
  const length = 1024;
  const requests = Array.from({ length: isGpu ? 136 : 16 }, () => ({
    context: Int32Array.from({ length }, () => random.nextInt(tokenizer.vocabSize)),
    continuation: Int32Array.of(random.nextInt(tokenizer.vocabSize)),
  }));
  // Full steps too, which are timed when they first occur.
  const numWarm = isGpu ? 8 : 2;
  await model.loglikelihood(requests.slice(0, numWarm));
  const rest = requests.slice(numWarm);
  const startMs = now();
  await model.loglikelihood(rest);
  return (rest.length * length) / ((now() - startMs) / 1000);
}

async function measure(name: string, freshRate: number) {
  await using engine = new RecordingEngine(newEngine());
  const model = new EngineLanguageModel(engine, { name: values.preset, tokenizer });
  const selection = registry.select([name], "lm-eval");
  let toldMs = performance.now();
  const startMs = now();
  const { tasks } = await evaluate(model, selection, store, {
    limit: values.limit === undefined ? undefined : Number(values.limit),
    bootstrapIterations: 0,
    onProgress: ({ numDoneRequests, numRequests }) => {
      if (values.json || performance.now() - toldMs < 10_000) return;
      toldMs = performance.now();
      process.stderr.write(`${name}: ${numDoneRequests} of ${numRequests} requests\n`);
    },
  });
  const seconds = (now() - startMs) / 1000;
  const { numSteps, numRows, numPromptTokens, numCachedPromptTokens, ...totals } = engine.statistics();
  const numSamples = tasks.reduce((sum, { samples }) => sum + samples.length, 0);
  const fullSamples = publishedSamples[name] ?? numSamples;
  return {
    task: name,
    numSamples,
    seconds,
    fullSamples,
    /** In proportion, where not all samples were scored. */
    fullSeconds: (seconds * fullSamples) / numSamples,
    numPrompts: engine.numRequests,
    numPromptTokens,
    numCachedPromptTokens,
    numRows,
    idealRows: engine.countDistinctPrefixes(),
    rowsPerSecond: numRows / seconds,
    shareOfFresh: numRows / seconds / freshRate,
    numSteps,
    rowsPerStep: numRows / numSteps,
    /** Of the time: waiting for the device. The rest is host work, which the device may have worked through. */
    waitShare: isPretended ? undefined : totals.waitSeconds / seconds,
  };
}

const count = (value: number): string => Math.round(value).toLocaleString("en-US");
const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

const what = isPretended ? "nothing" : `${values.preset} ${values.precision}`;
const freshRate = await prefillRate();
print(
  `${what} on ${values.device}, vocabulary of ${count(tokenizer.vocabSize)}, steps of ${maxStepRows} rows`,
);
print(`fresh prompts of 1,024 tokens: ${count(freshRate)} rows/s`);
const results = [];
for (const name of values.tasks.split(",")) {
  const result = await measure(name, freshRate);
  results.push(result);
  const { numSamples, fullSamples, fullSeconds, seconds } = result;
  const whole = numSamples === fullSamples ? "all" : `of ${count(fullSamples)}`;
  print(`${name}: ${count(numSamples)} samples (${whole}) in ${seconds.toFixed(1)} s`);
  if (numSamples !== fullSamples)
    print(`  all ${count(fullSamples)}, in proportion (an estimate): ${fullSeconds.toFixed(0)} s`);
  print(
    `  ${count(result.numPrompts)} prompts of ${count(result.numPromptTokens)} tokens, ${percent(result.numCachedPromptTokens / result.numPromptTokens)} found in the cache`,
  );
  print(
    `  ${count(result.numRows)} rows read, ${percent(result.numRows / result.idealRows - 1)} more than the ${count(result.idealRows)} distinct beginnings`,
  );
  print(
    `  ${count(result.rowsPerSecond)} rows/s, ${percent(result.shareOfFresh)} of fresh prompts, in ${count(result.numSteps)} steps of ${count(result.rowsPerStep)} rows`,
  );
  if (result.waitShare !== undefined)
    print(`  ${percent(result.waitShare)} of the time waiting for the device`);
}
if (values.json)
  process.stdout.write(`${JSON.stringify({ prefillRowsPerSecond: freshRate, results }, undefined, 2)}\n`);
