/**
 * Evaluation with random weights: how fast MMLU (five shots) and HellaSwag are scored, how much of the prompts the cache already has, and
 * what share of the rate of reading fresh prompts that is. Needs the data sets.
 *
 * usage: node bench/eval.ts --data FOLDER [--preset nemotron-10m|nemotron-3-8b] [--device cpu|cuda] [--precision f32|bf16] [--limit N]
 *        [--tasks mmlu,hellaswag] [--tokenizer FOLDER] [--json]
 */
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { RandomStream } from "../src/base/index.ts";
import { openDevice } from "../src/device/index.ts";
import { DataStore, evaluate, TaskRegistry } from "../src/eval/index.ts";
import { createEngine, EngineLanguageModel } from "../src/infer/index.ts";
import { Decoder, nemotronPreset } from "../src/models/index.ts";
import { Context } from "../src/tensor/index.ts";
import { loadTokenizer } from "../src/text/index.ts";

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
      default: fileURLToPath(new URL("../test/fixtures/tokenizer", import.meta.url)),
    },
    "cache-tokens": { type: "string", default: "65536" },
    json: { type: "boolean", default: false },
  },
});

const isGpu = values.device === "cuda";
using device = await openDevice({ kind: isGpu ? "cuda" : "cpu" });
const context = new Context(device);
const config = { ...nemotronPreset(values.preset), maxPositions: 4096 };
using decoder = new Decoder(context, config, { dtype: values.precision === "f32" ? "f32" : "bf16" });
decoder.parameters.initialise(1);
const tokenizer = loadTokenizer(values.tokenizer);
const store = new DataStore({ folders: [values.data] });
const registry = new TaskRegistry();

/** Each run has an engine, and so a cache, of its own. */
function newEngine() {
  return createEngine(context, decoder, {
    tokenizer,
    endTokens: [tokenizer.eosId],
    cacheTokens: Number(values["cache-tokens"]),
    maxStepRows: isGpu ? 4096 : 512,
  });
}

/** Tokens a second of prompts that nothing is known of, scored at their last token. */
async function prefillRate(): Promise<number> {
  await using engine = newEngine();
  const model = new EngineLanguageModel(engine, { name: "random", tokenizer });
  const random = new RandomStream(7);
  const length = 1024;
  const requests = Array.from({ length: isGpu ? 128 : 16 }, () => ({
    context: Int32Array.from({ length }, () => random.nextInt(tokenizer.vocabSize)),
    continuation: Int32Array.of(random.nextInt(tokenizer.vocabSize)),
  }));
  await model.loglikelihood(requests.slice(0, 2));
  const startMs = performance.now();
  await model.loglikelihood(requests);
  return (requests.length * length) / ((performance.now() - startMs) / 1000);
}

const fresh = await prefillRate();
const rows = [];
for (const name of values.tasks.split(",")) {
  await using engine = newEngine();
  const model = new EngineLanguageModel(engine, { name: values.preset, tokenizer });
  const selection = registry.select([name], "lm-eval");
  const { seconds } = await evaluate(model, selection, store, {
    limit: values.limit === undefined ? undefined : Number(values.limit),
    bootstrapIterations: 0,
  });
  const { numPromptTokens, numCachedPromptTokens, numSteps, stepSeconds, waitSeconds } = engine.statistics();
  const numRead = numPromptTokens - numCachedPromptTokens;
  rows.push({
    task: name,
    seconds,
    promptTokensPerSecond: numPromptTokens / seconds,
    readTokensPerSecond: numRead / seconds,
    shareOfPrefill: numRead / seconds / fresh,
    savedByPrefixes: numCachedPromptTokens / numPromptTokens,
    numPromptTokens,
    numSteps,
    rowsPerStep: numRead / numSteps,
    /** Of the time: within steps, and of that waiting for the device. */
    stepShare: stepSeconds / seconds,
    waitShare: waitSeconds / seconds,
  });
}

if (values.json)
  process.stdout.write(`${JSON.stringify({ prefillTokensPerSecond: fresh, rows }, undefined, 2)}\n`);
else {
  process.stdout.write(
    `${values.preset} ${values.precision} on ${values.device}: fresh prompts of 1,024 at ${fresh.toFixed(0)} tokens/s\n`,
  );
  for (const row of rows) {
    process.stdout.write(
      `${row.task}: ${row.numPromptTokens} tokens of prompts in ${row.seconds.toFixed(1)} s = ${row.promptTokensPerSecond.toFixed(0)} tokens/s asked; ` +
        `${(100 * row.savedByPrefixes).toFixed(1)} % found in the cache; the rest read at ${row.readTokensPerSecond.toFixed(0)} tokens/s, ${(100 * row.shareOfPrefill).toFixed(0)} % of fresh prompts; ` +
        `${row.numSteps} steps of ${row.rowsPerStep.toFixed(0)} rows, ${(100 * row.stepShare).toFixed(0)} % of the time in steps, ${(100 * row.waitShare).toFixed(0)} % waiting for the device\n`,
    );
  }
}
