/**
 * The engine: microseconds of host work a step around a model that takes no time (planning, packing a step's numbers, delivering tokens as
 * text), tokens per second of a small model on the CPU, block sizes, and what a constraint costs. `node bench/engine.ts [host|cpu|constraint] [--threads n]`
 */
import { parseArgs } from "node:util";
import { openDevice } from "../src/device/index.ts";
import { FakeRunner } from "../src/infer/engine/fakeRunner.ts";
import { StepInputs } from "../src/infer/runner/stepInputs.ts";
import {
  batchBucket,
  createEngine,
  EngineCore,
  generateTogether,
  GrammarCompiler,
  parseSampling,
} from "../src/infer/index.ts";
import type { Engine, EngineRequest, StepRunner } from "../src/infer/index.ts";
import { checkDecoderConfig, Decoder, nemotronPreset } from "../src/models/index.ts";
import { Context } from "../src/tensor/index.ts";
import { noModelInfo } from "../test/no-model.ts";
import { plainTokenizer } from "../test/plain-tokenizer.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { threads: { type: "string" } },
});
const parts = positionals.length === 0 ? ["host", "cpu", "constraint"] : positionals;
using device = await openDevice({
  kind: "cpu",
  threads: values.threads === undefined ? undefined : Number(values.threads),
});
const context = new Context(device);
console.log(device.description);

function requests(
  count: number,
  { numPrompt, maxTokens }: { numPrompt: number; maxTokens: number },
): EngineRequest[] {
  return Array.from({ length: count }, (_, seed) => ({
    prompt: Array.from({ length: numPrompt }, (_token, i) => (seed * 131 + i * 7) % 250),
    sampling: parseSampling({ maxTokens, temperature: 1, seed }),
  }));
}

async function run(
  engine: Engine,
  list: readonly EngineRequest[],
): Promise<{ seconds: number; numTokens: number }> {
  const startMs = performance.now();
  let numTokens = 0;
  for await (const { event } of generateTogether(engine, list)) if (event.type === "token") numTokens++;
  return { seconds: (performance.now() - startMs) / 1000, numTokens };
}

/** Packs each step as the real runner does, and answers with the model of arithmetic. */
function packingRunner(
  on: Context,
  {
    numSequences,
    blockSize,
    maxBlocksPerSequence,
  }: { numSequences: number; blockSize: number; maxBlocksPerSequence: number },
): StepRunner {
  const fake = new FakeRunner({ numBlocks: numSequences * maxBlocksPerSequence, blockSize, vocabSize: 256 });
  const bucket = batchBucket(numSequences);
  const shape = {
    numRows: bucket,
    numSequences: bucket,
    numDraws: bucket,
    maxQueryLength: 1,
    blockSize,
    maxBlocksPerSequence,
  };
  const inputs = new StepInputs(on, shape);
  return {
    execute(step) {
      if (step.isDecode) inputs.fill(on, step.pieces);
      return fake.execute(step);
    },
    dispose: () => inputs.dispose(),
    [Symbol.dispose]: () => inputs.dispose(),
  };
}

async function measureHost(): Promise<void> {
  const blockSize = 16;
  const maxContext = 4096;
  for (const numSequences of [1, 16, 64, 256]) {
    const numBlocks = numSequences * (maxContext / blockSize);
    await using engine = new EngineCore({
      runner: packingRunner(context, {
        numSequences,
        blockSize,
        maxBlocksPerSequence: maxContext / blockSize,
      }),
      tokenizer: plainTokenizer(256),
      info: noModelInfo({ maxContext, vocabSize: 256 }),
      scheduler: { numBlocks, blockSize, maxStepRows: 2048, maxSequences: numSequences },
      endTokens: [],
    });
    const list = requests(numSequences, { numPrompt: 128, maxTokens: 400 });
    await run(engine, list);
    const before = engine.statistics();
    const { seconds } = await run(engine, list);
    const after = engine.statistics();
    const numSteps = after.numSteps - before.numSteps;
    const perStep = (total: number): string => ((total * 1e6) / numSteps).toFixed(0).padStart(6);
    console.log(
      `host, ${String(numSequences).padStart(3)} sequences: ${perStep(seconds)} us a step in all; ` +
        `plan and deliver ${perStep(after.hostSeconds - before.hostSeconds)}, pack ${perStep(after.stepSeconds - before.stepSeconds)}`,
    );
  }
}

/** About ten million parameters. */
const config = checkDecoderConfig({
  ...nemotronPreset("nemotron-tiny"),
  vocabSize: 8192,
  width: 320,
  ffnWidth: 1280,
  numLayers: 6,
  numHeads: 5,
  numKvHeads: 5,
  headDim: 64,
  maxPositions: 1024,
  rotary: { rotaryDim: 32, base: 10000 },
});

async function measureCpu(): Promise<void> {
  using decoder = new Decoder(context, config, { dtype: "bf16" });
  decoder.parameters.initialise(1);
  const tokenizer = plainTokenizer(config.vocabSize);
  for (const blockSize of [8, 16, 32, 64]) {
    await using engine = createEngine(context, decoder, {
      tokenizer,
      endTokens: [],
      cacheTokens: 16 * 512,
      blockSize,
      maxStepRows: 512,
    });
    for (const concurrency of blockSize === 16 ? [1, 4, 16] : [16]) {
      const list = requests(concurrency, { numPrompt: 256, maxTokens: 64 });
      await run(engine, requests(concurrency, { numPrompt: 8, maxTokens: 4 }));
      const before = engine.statistics();
      const { seconds, numTokens } = await run(engine, list);
      const after = engine.statistics();
      const hostShare = (after.hostSeconds - before.hostSeconds) / seconds;
      console.log(
        `CPU bf16, blocks of ${blockSize}, ${concurrency} at once, 256 + 64 tokens: ${(numTokens / seconds).toFixed(0)} tok/s out, ` +
          `host ${(100 * hostShare).toFixed(1)} %`,
      );
    }
  }
}

/** A vocabulary of 256,000 made-up words. */
function wideTokenizer(): ReturnType<typeof plainTokenizer> {
  const vocabSize = 256_000;
  const encoder = new TextEncoder();
  const texts = Array.from({ length: vocabSize }, (_, id) =>
    id < 256
      ? Uint8Array.of(id)
      : encoder.encode(`${id % 3 === 0 ? " " : ""}${(id * 2654435761).toString(26)}`),
  );
  return { ...plainTokenizer(vocabSize), decodeBytes: (ids) => texts[[...ids][0]] };
}

function measureConstraint(): void {
  const compiler = new GrammarCompiler(wideTokenizer(), 256_000);
  let startMs = performance.now();
  compiler.warmUp();
  console.log(`constraint: tree of 256,000 tokens in ${(performance.now() - startMs).toFixed(0)} ms, once`);
  const schema = {
    type: "object",
    properties: {
      name: { type: "string" },
      age: { type: "integer" },
      tags: { type: "array", items: { type: "string" } },
    },
    required: ["name", "age", "tags"],
  };
  const text = new TextEncoder().encode(
    '{"name": "somebody with a name", "age": 42, "tags": ["one", "two"]}',
  );
  for (const round of ["first", "again"]) {
    startMs = performance.now();
    const state = compiler.compile({ kind: "json-schema", schema }).start([255_999]);
    let slowestMs = 0;
    for (const byte of text) {
      const maskMs = performance.now();
      state.allowed();
      slowestMs = Math.max(slowestMs, performance.now() - maskMs);
      state.advance(byte);
    }
    const meanUs = ((performance.now() - startMs) * 1000) / text.length;
    console.log(
      `constraint, ${round} time: ${meanUs.toFixed(0)} us a token on average, ${slowestMs.toFixed(2)} ms the slowest mask`,
    );
  }
}

if (parts.includes("host")) await measureHost();
if (parts.includes("cpu")) await measureCpu();
if (parts.includes("constraint")) measureConstraint();
