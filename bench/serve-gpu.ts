/**
 * What the server gives from a GPU: output tokens a second at several concurrencies, time to the first token and between tokens, past HTTP
 * (the engine in its thread) and through it (`/v1/completions`, streamed over loopback), each beside the step's physical limit.
 *
 *   node bench/serve-gpu.ts [--cases 1:128:128,64:128:128] [--in-process | --http | --http-cases 1:128:128] [--quantise fp8] [--kv-cache fp8]
 *     [--peer transformers_serve_peer.py] [--json]
 *   node bench/serve-gpu.ts --preset nemotron-tiny --device cpu --cases 1:16:16,4:16:16
 *
 * A case is CONCURRENCY:PROMPT:NEW[:ROUNDS] in tokens: so many clients, each with ROUNDS requests one after another, random weights,
 * random prompts, greedy, no end token. The limit is that of a decoding step: weights and the cache of the mean context, read once.
 */
import { spawnSync } from "node:child_process";
import { Agent } from "node:http";
import { parseArgs } from "node:util";
import { ConfigError, RandomStream } from "../src/base/index.ts";
import {
  cacheBytesPerToken,
  cacheFormats,
  countMatmulParameters,
  nemotronPreset,
  weightBytes,
} from "../src/models/index.ts";
import { ask } from "./serve-client.ts";
import { ServerProcess } from "./serve-gpu-process.ts";
import { caseSchema, closedLoop, engineSettingsSchema, summarise } from "./serve-gpu-shared.ts";
import type { BenchEngineSettings, EngineTotals, ServingCase, ServingFigures } from "./serve-gpu-shared.ts";

/** Of an H200, as measured (docs/performance.md): read bandwidth, and the rate of matrix products that prompts are read with; of fp8, twice that. */
const bandwidthBytes = 4.45e12;
const matmulRate = 787e12;
const fp8MatmulRate = 2 * matmulRate;

const { values } = parseArgs({
  options: {
    preset: { type: "string", default: "nemotron-3-8b" },
    device: { type: "string", default: "cuda" },
    quantise: { type: "string" },
    cases: { type: "string", default: "1:128:128,16:128:128,64:128:128,256:128:128,64:1000:1000" },
    "http-cases": { type: "string" },
    "in-process": { type: "boolean", default: false },
    http: { type: "boolean", default: false },
    peer: { type: "string" },
    "peer-cases": { type: "string", default: "64:128:128,256:128:128" },
    "limit-s": { type: "string", default: "300" },
    "peer-limit-s": { type: "string", default: "120" },
    "max-context": { type: "string" },
    "max-step-rows": { type: "string", default: "2048" },
    "block-size": { type: "string" },
    "kv-cache": { type: "string", default: "auto" },
    json: { type: "boolean", default: false },
  },
});

const kvCache = cacheFormats.find((format) => format === values["kv-cache"]);
if (kvCache === undefined)
  throw new ConfigError("bench", `--kv-cache: expected auto or fp8, got '${values["kv-cache"]}'`);

type Place = "in process" | "http";

interface Row {
  place: Place;
  case: ServingCase;
  figures: ServingFigures;
  /** Tokens a second if every step took only its reads, and if prompts were read at the products' rate besides. */
  limit: number;
  limitWithPrompts: number;
  /** Per step of the engine. */
  numSteps: number;
  stepMs: number;
  waitMs: number;
  queueMs: number;
  hostMs: number;
}

let numSeeds = 0;

function parseCases(text: string): ServingCase[] {
  return text.split(",").map((part) => {
    const [concurrency, numPrompt, numNew, rounds = 1] = part.split(":").map(Number);
    const parsed = caseSchema.safeParse({ concurrency, numPrompt, numNew, rounds, seed: 0 });
    if (parsed.success) return parsed.data;
    throw new ConfigError("bench", `--cases: expected CONCURRENCY:PROMPT:NEW[:ROUNDS], got '${part}'`);
  });
}

function nameOf({ concurrency, numPrompt, numNew, rounds }: ServingCase): string {
  return [concurrency, numPrompt, numNew, rounds].join(":");
}

const maybeNumber = (text: string | undefined): number | undefined =>
  text === undefined ? undefined : Number(text);

function settingsFor(cases: readonly ServingCase[]): BenchEngineSettings {
  const blockSize = maybeNumber(values["block-size"]);
  const room = 2 * (blockSize ?? 16);
  return engineSettingsSchema.parse({
    preset: values.preset,
    device: values.device,
    quantise: values.quantise,
    cacheTokens:
      Math.max(
        ...cases.map(
          ({ concurrency, numPrompt, numNew }) => concurrency * (numPrompt + numNew + room) * 1.02,
        ),
      ) | 0,
    kvCache,
    maxContext: maybeNumber(values["max-context"]),
    maxSequences: Math.max(...cases.map(({ concurrency }) => concurrency)),
    maxStepRows: Number(values["max-step-rows"]),
    blockSize,
  });
}

async function runThroughHttp(server: ServerProcess, given: ServingCase): Promise<ServingFigures> {
  const { vocabSize } = nemotronPreset(values.preset);
  const random = new RandomStream(given.seed);
  const agent = new Agent({ keepAlive: true, maxSockets: Infinity });
  const bodies = Array.from({ length: given.concurrency * given.rounds }, () => ({
    prompt: Array.from({ length: given.numPrompt }, () => random.nextInt(vocabSize)),
    max_tokens: given.numNew,
    min_tokens: given.numNew,
    temperature: 0,
    ignore_eos: true,
    stream: true,
    stream_options: { include_usage: true },
  }));
  try {
    const timings = await closedLoop(given, (index) => ask(server.url, agent, bodies[index]));
    const wrong = timings.find(({ status, isWhole }) => status !== 200 || !isWhole);
    if (wrong !== undefined)
      throw new ConfigError("bench", `expected whole answers, got one of status ${wrong.status}`);
    return summarise(timings);
  } finally {
    agent.destroy();
  }
}

async function runAt(place: Place, server: ServerProcess, given: ServingCase): Promise<ServingFigures> {
  const own = { ...given, seed: ++numSeeds };
  if (place === "http") return await runThroughHttp(server, own);
  server.tell({ type: "run", case: own });
  return (await server.answer("figures")).figures;
}

async function measure(place: Place, server: ServerProcess, given: ServingCase): Promise<Row> {
  await runAt(place, server, { ...given, rounds: 1, numNew: Math.min(given.numNew, 8) });
  const before = await server.totals();
  const figures = await runAt(place, server, given);
  const after = await server.totals();
  const expected = given.concurrency * given.rounds * given.numNew;
  if (figures.numTokens !== expected)
    throw new ConfigError("bench", `expected ${expected} tokens, got ${figures.numTokens}`);
  const numSteps = after.numSteps - before.numSteps;
  const perStep = (of: (totals: EngineTotals) => number): number =>
    ((of(after) - of(before)) * 1000) / numSteps;
  return {
    place,
    case: given,
    figures,
    ...limitsOf(given, server.settings),
    numSteps,
    stepMs: (figures.seconds * 1000) / numSteps,
    waitMs: perStep((totals) => totals.waitSeconds),
    queueMs: perStep((totals) => totals.stepSeconds - totals.waitSeconds),
    hostMs: perStep((totals) => totals.hostSeconds),
  };
}

function limitsOf(
  { concurrency, numPrompt, numNew }: ServingCase,
  { quantise }: BenchEngineSettings,
): { limit: number; limitWithPrompts: number } {
  const config = nemotronPreset(values.preset);
  const parameters = countMatmulParameters(config);
  const saved = weightBytes(config, "bf16") - weightBytes(config, "bf16", quantise);
  const context = numPrompt + numNew / 2;
  const cacheBytes = concurrency * context * cacheBytesPerToken(config, "bf16", kvCache);
  const bytes = 2 * parameters - saved + cacheBytes;
  const secondsDecoding = bytes / bandwidthBytes / concurrency;
  const operations = 2 * (parameters - config.vocabSize * config.width);
  const rate = quantise === "fp8" ? fp8MatmulRate : matmulRate;
  const secondsReading = ((numPrompt / numNew) * operations) / rate;
  return { limit: 1 / secondsDecoding, limitWithPrompts: 1 / (secondsDecoding + secondsReading) };
}

const columns = [
  "place",
  "case",
  "tok/s",
  "of limit",
  "with prompts",
  "first p50",
  "p99",
  "between p50",
  "p99 ms",
  "steps",
  "ms",
  "wait",
  "queue",
  "host",
];
const widths = [10, 14, 8, 9, 13, 10, 8, 12, 8, 6, 7, 7, 7, 7];

function printRow(cells: readonly string[]): void {
  console.log(cells.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join(" "));
}

function show({ place, case: given, figures, ...row }: Row): void {
  const share = (limit: number): string => `${((100 * figures.tokensPerSecond) / limit).toFixed(0)} %`;
  const { firstTokenMs, betweenMs } = figures;
  printRow([
    place,
    nameOf(given),
    figures.tokensPerSecond.toFixed(0),
    share(row.limit),
    share(row.limitWithPrompts),
    firstTokenMs.p50.toFixed(1),
    firstTokenMs.p99.toFixed(1),
    betweenMs.p50.toFixed(2),
    betweenMs.p99.toFixed(2),
    String(row.numSteps),
    row.stepMs.toFixed(2),
    row.waitMs.toFixed(2),
    row.queueMs.toFixed(2),
    row.hostMs.toFixed(2),
  ]);
}

/** The peer's own lines: it says them as JSON. */
function runPeer(script: string): void {
  const cases = values["peer-cases"].split(",");
  spawnSync("python3", [script, ...cases], {
    stdio: ["ignore", "inherit", "ignore"],
    timeout: Number(values["peer-limit-s"]) * 1000,
    killSignal: "SIGKILL",
  });
}

async function main(): Promise<void> {
  const cases = parseCases(values.cases);
  const throughHttp = new Set(parseCases(values["http-cases"] ?? values.cases).map(nameOf));
  const places: Place[] =
    values["in-process"] === values.http ? ["in process", "http"] : values.http ? ["http"] : ["in process"];
  const server = new ServerProcess(settingsFor(cases));
  const timer = setTimeout(
    () => {
      console.error(`not done within ${values["limit-s"]} s`);
      server.kill();
      process.exit(1);
    },
    Number(values["limit-s"]) * 1000,
  );
  const { url, device, openSeconds } = await server.answer("ready");
  server.url = url;
  console.log(
    `${device}; ${values.preset} in ${values.quantise ?? "bf16"}, cache ${values["kv-cache"]}; ready after ${openSeconds.toFixed(1)} s; step columns in ms a step`,
  );
  printRow(columns);
  const rows: Row[] = [];
  for (const given of cases) {
    for (const place of places) {
      if (place === "http" && !throughHttp.has(nameOf(given))) continue;
      const row = await measure(place, server, given);
      show(row);
      rows.push(row);
    }
  }
  await server.stop();
  clearTimeout(timer);
  if (values.peer !== undefined) runPeer(values.peer);
  if (values.json) console.log(JSON.stringify(rows));
}

await main();
