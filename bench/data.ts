/**
 * Speed of the data path: reading and parsing, preparing with a trained tokenizer by the number of
 * workers, building indices, and loading batches. The limit of preparing is the encoder alone, in memory, on all cores the
 * workers have; the share of it is printed by the clock, and by processor time, which other programs on the machine do not change.
 *
 *   node bench/data.ts [--corpus GLOB] [--tokenizer tokenizer.json] [--megabytes 60]
 *
 * Without --tokenizer one of 16,384 pieces is trained on 10 MB of the corpus first.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import {
  buildGptIndex,
  type DocumentEncoder,
  type EncoderSpec,
  GptDataset,
  MegatronReader,
  prepareDataset,
  readDocuments,
  TokenLoader,
} from "../src/data/index.ts";
import { loadTokenizer, saveTokenizer, trainTokenizer } from "../src/text/index.ts";

const { values } = parseArgs({
  options: {
    corpus: { type: "string", default: "../shared/corpus/*.jsonl.gz" },
    tokenizer: { type: "string" },
    megabytes: { type: "string", default: "60" },
  },
});
const folder = mkdtempSync(join(tmpdir(), "nautilus-bench-data-"));
const numCores = availableParallelism();

interface Taken {
  seconds: number;
  /** Of all threads. */
  cpuSeconds: number;
}

async function timed(body: () => void | Promise<void>): Promise<Taken> {
  const startedMs = performance.now();
  const started = process.cpuUsage();
  await body();
  const { user, system } = process.cpuUsage(started);
  return { seconds: (performance.now() - startedMs) / 1000, cpuSeconds: (user + system) / 1e6 };
}

function print(name: string, figure: string, limit = ""): void {
  process.stdout.write(`${name.padEnd(46)} ${figure.padStart(28)}  ${limit}\n`);
}

/** Every n-th document of the corpus, so that the sample has all its languages, as one .jsonl.gz. */
async function writeSample(
  limitBytes: number,
): Promise<{ path: string; texts: string[]; textBytes: number }> {
  const all: string[] = [];
  let allBytes = 0;
  for await (const { text } of readDocuments([values.corpus])) {
    all.push(text);
    allBytes += Buffer.byteLength(text);
  }
  const stride = Math.max(1, Math.ceil(allBytes / limitBytes));
  const texts = all.filter((_, i) => i % stride === 0);
  const path = join(folder, "sample.jsonl.gz");
  writeFileSync(path, gzipSync(texts.map((text) => `${JSON.stringify({ text })}\n`).join(""), { level: 6 }));
  return { path, texts, textBytes: texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0) };
}

async function benchPrepare(encoder: DocumentEncoder, spec: EncoderSpec): Promise<void> {
  const alone = await timed(() => sample.texts.forEach((text) => void encoder.encode(text)));
  print("encoding alone, one core", rates(alone));
  for (const numWorkers of [0, 1, numCores]) {
    const output = join(folder, "tokens");
    const taken = await timed(async () => {
      await prepareDataset({ sources: [sample.path], output, encoder: spec, numWorkers });
    });
    const limitSeconds = alone.seconds / Math.max(1, Math.min(numWorkers, numCores));
    const byClock = (100 * limitSeconds) / taken.seconds;
    const byCpu = (100 * alone.cpuSeconds) / taken.cpuSeconds;
    print(
      `preparing, ${numWorkers} workers`,
      rates(taken),
      `${byClock.toFixed(0)} % of the limit by the clock, ${byCpu.toFixed(0)} % by processor time`,
    );
  }
}

function rates({ seconds, cpuSeconds }: Taken): string {
  return `${(megabytes / seconds).toFixed(1)} MB/s (${(megabytes / cpuSeconds).toFixed(1)} a core)`;
}

async function benchLoader(prefix: string): Promise<void> {
  for (const residentBytes of [0, 2 ** 40]) {
    using reader = new MegatronReader(prefix, { residentBytes });
    const dataset = new GptDataset({ reader, sequenceLength: 4096, numSamples: 4000 });
    const loader = new TokenLoader({ dataset, microBatchSize: 4 });
    loader.next();
    let numTokens = 0;
    const taken = await timed(() => {
      for (const batch of loader) numTokens += batch.tokens.length;
    });
    const where = residentBytes === 0 ? "from the file" : "from memory";
    print(
      `loader, 4 x 4096, shuffled, ${where}`,
      `${(numTokens / taken.seconds / 1e6).toFixed(1)} M tokens/s`,
    );
  }
}

async function benchIndex(): Promise<void> {
  const lengths = Int32Array.from({ length: 10_000_000 }, (_, i) => 100 + ((i * 7919) % 900));
  let numSamples = 0;
  const taken = await timed(() => {
    const documents = { begin: 0, end: lengths.length };
    numSamples = buildGptIndex({ lengths, documents, sequenceLength: 4096, seed: 1 }).numSamples;
  });
  print("index of 10 M documents", `${taken.seconds.toFixed(2)} s`, `${numSamples} samples of 4096`);
}

async function tokenizerPath(): Promise<string> {
  if (values.tokenizer !== undefined) return values.tokenizer;
  saveTokenizer(
    await trainTokenizer({ texts: sample.texts, vocabSize: 16_384, sampleBytes: 10_000_000 }),
    folder,
  );
  return join(folder, "tokenizer.json");
}

const sample = await writeSample(Number(values.megabytes) * 1e6);
const megabytes = sample.textBytes / 1e6;
print("text", `${megabytes.toFixed(1)} MB`, `${sample.texts.length} documents, ${numCores} cores`);
const reading = await timed(async () => {
  for await (const _ of readDocuments([sample.path]));
});
print("reading .jsonl.gz and parsing, one thread", rates(reading));
const path = await tokenizerPath();
await benchPrepare(loadTokenizer(path), { tokenizerPath: path });
await benchLoader(join(folder, "tokens"));
await benchIndex();
rmSync(folder, { recursive: true });
