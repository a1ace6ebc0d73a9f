/**
 * What it costs to serve many adapters in one batch: tokens per second of decoding with as many sequences as are named, without adapters
 * and with sixteen LoRA adapters of rank 16 in turn over them. Weights are random; the adapters' factors lie where loaded ones would.
 *
 * usage: node bench/adapters-gpu.ts [--preset nemotron-3-8b] [--device cuda|cpu] [--batches 16,64] [--slots 16] [--rank 16]
 *   [--targets attention] [--prompt 128] [--new 96] [--rounds 2] [--filled SLOTS]
 * Slots beyond those to fill hold zeros, which take as long to read; filling takes seconds of the host.
 */
import { parseArgs } from "node:util";
import { openDevice } from "../src/device/index.ts";
import { createEngine, generateTogether, parseSampling } from "../src/infer/index.ts";
import type { AdapterSlots, Engine, EngineRequest } from "../src/infer/index.ts";
import {
  AdapterStack,
  createAdapter,
  Decoder,
  modelFamily,
  nemotronPreset,
  parseAdapterConfig,
} from "../src/models/index.ts";
import { Context } from "../src/tensor/index.ts";
import { letterTokenizer } from "./serve-gpu-tokenizer.ts";

const { values } = parseArgs({
  options: {
    preset: { type: "string", default: "nemotron-3-8b" },
    device: { type: "string", default: "cuda" },
    batches: { type: "string", default: "16,64" },
    slots: { type: "string", default: "16" },
    rank: { type: "string", default: "16" },
    targets: { type: "string", default: "attention" },
    prompt: { type: "string", default: "128" },
    new: { type: "string", default: "96" },
    rounds: { type: "string", default: "2" },
    filled: { type: "string" },
  },
});
const numSlots = Number(values.slots);
const rank = Number(values.rank);
const numPrompt = Number(values.prompt);
const numNew = Number(values.new);
const batches = values.batches.split(",").map(Number);
const mostSequences = Math.max(...batches);

using device = await openDevice({ kind: values.device === "cpu" ? "cpu" : "cuda" });
const context = new Context(device);
const config = nemotronPreset(values.preset);
const family = modelFamily(config);
using decoder = new Decoder(context, config, { dtype: "bf16" });
decoder.parameters.initialise(1);
// As large as the vocabulary, so that the whole head is read.
const tokenizer = letterTokenizer(config.vocabSize);

/** Every slot has the same factors: the time hangs on where they lie, not on what they are. */
function filledStack(): AdapterStack {
  const stack = new AdapterStack(context, decoder, { family, numSlots, maxRank: rank });
  using adapter = createAdapter(decoder, {
    family,
    config: parseAdapterConfig({ method: "lora", rank, targets: values.targets }),
    dtype: "bf16",
    gradientDtype: "bf16",
  });
  adapter.initialise(context, 1);
  for (let slot = 0; slot < Number(values.filled ?? numSlots); slot++) stack.put(slot, adapter);
  return stack;
}

const slots: AdapterSlots = {
  names: Array.from({ length: numSlots }, (_, slot) => `${slot}`),
  indexOf: (name) => Number(name) + 1,
  load: () => Promise.resolve(),
  unload: () => Promise.resolve(),
};

function requests(count: number, isAdapted: boolean, seed: number): EngineRequest[] {
  return Array.from({ length: count }, (_, place) => ({
    prompt: Array.from({ length: numPrompt }, (_token, i) => (seed * 977 + place * 131 + i * 7) % 250),
    sampling: parseSampling({ maxTokens: numNew, temperature: 1, seed: place, stopAtEnd: false }),
    ...(isAdapted ? { adapter: `${place % numSlots}` } : {}),
  }));
}

/** Tokens per second between the first token of the last sequence and the first end: all decode then. */
async function decodeRate(engine: Engine, list: readonly EngineRequest[]): Promise<number> {
  const seen = list.map(() => 0);
  let numStarted = 0;
  let numTokens = 0;
  let startMs = 0;
  let endMs = 0;
  for await (const { index, event } of generateTogether(engine, list)) {
    if (event.type !== "token" || endMs > 0) continue;
    if (numStarted === list.length) numTokens++;
    if (seen[index]++ === 0 && ++numStarted === list.length) startMs = performance.now();
    if (seen[index] === numNew) endMs = performance.now();
  }
  return (1000 * numTokens) / (endMs - startMs);
}

async function measure(isAdapted: boolean): Promise<number[]> {
  using stack = isAdapted ? filledStack() : undefined;
  decoder.attach(stack);
  await using engine = createEngine(context, decoder, {
    tokenizer,
    endTokens: [],
    cacheTokens: mostSequences * (Math.ceil((numPrompt + numNew) / 16) + 1) * 16,
    maxSequences: mostSequences,
    reusesPrefixes: false,
    adapters: isAdapted ? slots : undefined,
  });
  const rates: number[] = [];
  for (const count of batches) {
    let best = 0;
    // The round before the first captures the graph.
    for (let round = 0; round <= Number(values.rounds); round++) {
      const rate = await decodeRate(engine, requests(count, isAdapted, round));
      if (round > 0) best = Math.max(best, rate);
    }
    rates.push(best);
  }
  decoder.attach(undefined);
  return rates;
}

const plain = await measure(false);
const adapted = await measure(true);
for (const [place, count] of batches.entries())
  console.log(
    `decode batch ${count}: ${plain[place].toFixed(0)} tok/s without adapters, ${adapted[place].toFixed(0)} with ${Math.min(count, numSlots)} of rank ${rank} (${values.targets}): ` +
      `costs ${(100 * (1 - adapted[place] / plain[place])).toFixed(1)} %`,
  );
