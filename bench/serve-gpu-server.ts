/**
 * The server of bench/serve-gpu.ts, in a process of its own: the HTTP server over an engine in a worker thread. Told to, it runs a case on
 * the engine itself, past HTTP. Its argument: the engine's settings as JSON.
 */
import { Worker } from "node:worker_threads";
import { setTimeout as delay } from "node:timers/promises";
import { invariant, RandomStream } from "../src/base/index.ts";
import { parseSampling, ThreadedEngine } from "../src/infer/index.ts";
import type { Engine } from "../src/infer/index.ts";
import { createServer } from "../src/app/server/server.ts";
import { ServedModels } from "../src/app/server/servedModel.ts";
import { fakeModel } from "../test/server/fakeServer.ts";
import { startTiming } from "./serve-client.ts";
import type { Timing } from "./serve-client.ts";
import { closedLoop, engineSettingsSchema, summarise, toServerSchema } from "./serve-gpu-shared.ts";
import type { FromServer, ServingCase, ServingFigures } from "./serve-gpu-shared.ts";
import { letterTokenizer } from "./serve-gpu-tokenizer.ts";

/** Longer than the engine's thread takes to tell its statistics. */
const settledMs = 250;

function promptOf(vocabSize: number, { seed, numPrompt }: ServingCase, index: number): number[] {
  const random = new RandomStream(seed * 100_000 + index);
  return Array.from({ length: numPrompt }, () => random.nextInt(vocabSize));
}

async function runOnce(engine: Engine, given: ServingCase, index: number): Promise<Timing> {
  const prompt = promptOf(engine.info.vocabSize, given, index);
  const { numNew: maxTokens } = given;
  const timing = startTiming();
  let lastMs = 0;
  const sampling = parseSampling({ maxTokens, minTokens: maxTokens, temperature: 0, stopAtEnd: false });
  for await (const event of engine.generate({ prompt, sampling })) {
    if (event.type !== "token") continue;
    const nowMs = performance.now();
    if (timing.firstMs === undefined) timing.firstMs = nowMs;
    else timing.gapsMs.push(nowMs - lastMs);
    lastMs = nowMs;
    timing.numTokens++;
  }
  timing.endMs = performance.now();
  return timing;
}

async function runCase(engine: Engine, given: ServingCase): Promise<ServingFigures> {
  return summarise(await closedLoop(given, (index) => runOnce(engine, given, index)));
}

const settings = engineSettingsSchema.parse(JSON.parse(process.argv[2] ?? ""));
const openedMs = performance.now();
const engine = await ThreadedEngine.open({
  start: () => new Worker(new URL("serve-gpu-worker.ts", import.meta.url), { workerData: settings }),
});
const openSeconds = (performance.now() - openedMs) / 1000;
const model = {
  ...fakeModel(),
  name: settings.preset,
  engine,
  tokenizer: letterTokenizer(engine.info.vocabSize),
};
const server = createServer({
  models: new ServedModels([model]),
  options: { port: 0, log: { level: "silent" }, maxConcurrent: 4096 },
});
const [url] = await server.start();
const send = (message: FromServer): void => {
  invariant(process.send !== undefined, "a parent that asks");
  process.send(message);
};

async function stop(): Promise<void> {
  await server.stop();
  await engine[Symbol.asyncDispose]();
  process.disconnect();
}

async function answer(input: unknown): Promise<void> {
  const message = toServerSchema.parse(input);
  switch (message.type) {
    case "run":
      send({ type: "figures", figures: await runCase(engine, message.case) });
      break;
    case "totals": {
      await delay(settledMs);
      const { numSteps, stepSeconds, hostSeconds, waitSeconds } = engine.statistics();
      send({ type: "totals", totals: { numSteps, stepSeconds, hostSeconds, waitSeconds } });
      break;
    }
    case "stop":
      await stop();
  }
}

process.on("message", (message) => {
  answer(message).catch((error: unknown) => {
    console.error(error);
    process.exit(1);
  });
});
// Whoever started this process is gone: nobody wants the card held.
process.once("disconnect", () => process.exit());
send({ type: "ready", url: url ?? "", device: engine.info.device, openSeconds });
