/**
 * LoRA adapters over HTTP: requests of one batch for a model and two of its adapters get what engines with that one adapter give, also
 * after the engine's worker was started again, and after adapters were exchanged at run time; and `nautilus serve` by its options.
 */
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { RandomStream } from "../../src/base/index.ts";
import { openEngine } from "../../src/app/api/openEngine.ts";
import type { EngineSettings, OpenEngine } from "../../src/app/api/openEngine.ts";
import { createServer } from "../../src/app/server/server.ts";
import { ServedModels } from "../../src/app/server/servedModel.ts";
import type { ServedModel } from "../../src/app/server/servedModel.ts";
import { openDevice } from "../../src/device/index.ts";
import { parseSampling, ThreadedEngine } from "../../src/infer/index.ts";
import {
  createAdapter,
  Decoder,
  loadModelFolder,
  modelFamily,
  parseAdapterConfig,
  saveAdapter,
} from "../../src/models/index.ts";
import type { AdapterConfigInput } from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { smallConfig, writeModel } from "../app/model-folders.ts";

const config = smallConfig("nemotron-tiny");
const program = fileURLToPath(new URL("../../bin/nautilus.js", import.meta.url));
const workerUrl = new URL("../../src/app/api/engineWorker.ts", import.meta.url);
let folder: string;
const model = (): string => join(folder, "model");
const adapterFolder = (name: string): string => join(folder, name);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "nautilus-adapters-"));
  await writeModel(model(), config);
  using device = await openDevice({ kind: "reference" });
  const context = new Context(device);
  using decoder = new Decoder(context, config, { dtype: "f32" });
  decoder.parameters.initialise(5);
  writeAdapter(context, decoder, "one", { method: "lora", rank: 4, targets: ["all"] });
  writeAdapter(context, decoder, "two", { method: "lora", rank: 3, targets: ["all"] });
});
afterAll(() => rmSync(folder, { recursive: true }));

/** An adapter with no zero in it, large enough to change what is written. */
function writeAdapter(context: Context, decoder: Decoder, name: string, input: AdapterConfigInput): void {
  const family = modelFamily(config);
  const adapterConfig = parseAdapterConfig(input);
  using adapter = createAdapter(decoder, { family, config: adapterConfig, dtype: "f32" });
  const random = new RandomStream(name.charCodeAt(0));
  for (const parameter of adapter.parameters)
    parameter.set(Float64Array.from({ length: parameter.numElements }, () => 0.4 * random.nextNormal()));
  saveAdapter(context, adapter, { decoder, family, folder: adapterFolder(name), baseModel: "base" });
}

const size = { device: "cpu", threads: 1, cacheTokens: 1024, maxSequences: 8 } as const;

function served(
  name: string,
  engine: ServedModel["engine"],
  tokenizer: ServedModel["tokenizer"],
): ServedModel {
  return {
    name,
    engine,
    tokenizer,
    chatTemplates: undefined,
    card: undefined,
    license: undefined,
    created: 0,
  };
}

const prompts = ["Ship", "The sea"];

/** What models write after the prompts, all asked at once. */
async function textsOf(client: OpenAI, models: readonly string[]): Promise<string[][]> {
  const ask = async (name: string, prompt: string): Promise<string> => {
    const request = { model: name, prompt, max_tokens: 10, temperature: 0, ignore_eos: true };
    return (await client.completions.create(request)).choices[0].text;
  };
  return Promise.all(models.map((name) => Promise.all(prompts.map((prompt) => ask(name, prompt)))));
}

const names = ["base:one", "base:two", "base"];

describe("adapters behind the server", () => {
  it("give in one batch what each gives alone, after a restart and an exchange too", async () => {
    const settings: EngineSettings = { ...size, model: model(), maxAdapters: 2 };
    await using plain = await openEngine({ ...size, model: model() });
    await using first = await openEngine({ ...size, model: model(), adapter: adapterFolder("one") });
    await using second = await openEngine({ ...size, model: model(), adapter: adapterFolder("two") });
    const workers: Worker[] = [];
    const start = (): Worker => {
      workers.push(new Worker(workerUrl, { workerData: settings }));
      return workers[workers.length - 1];
    };
    await using engine = await ThreadedEngine.open({ start, restartMs: 1 });
    for (const name of ["one", "two"]) await engine.loadAdapter(name, adapterFolder(name));
    const models = [
      served("base", engine, plain.tokenizer),
      served("alone", plain.engine, plain.tokenizer),
      served("alone-one", first.engine, plain.tokenizer),
      served("alone-two", second.engine, plain.tokenizer),
    ];
    const options = { host: "127.0.0.1", port: 0, log: { level: "silent" as const } };
    await using server = createServer({ models: new ServedModels(models), options });
    const [url] = await server.start();
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });

    const alone = await textsOf(client, ["alone-one", "alone-two", "alone"]);
    expect(new Set(alone.map((texts) => texts.join("|"))).size).toBe(3);
    expect(await textsOf(client, names)).toEqual(alone);

    await workers[0].terminate();
    await expect.poll(() => engine.numRestarts === 1 && engine.isReady, { timeout: 20_000 }).toBe(true);
    expect(engine.info.adapters).toEqual(["one", "two"]);
    expect(await textsOf(client, names)).toEqual(alone);

    await engine.unloadAdapter("one");
    await expect(textsOf(client, ["base:one"])).rejects.toThrow(/404/);
    await engine.loadAdapter("again", adapterFolder("one"));
    expect(await textsOf(client, ["base:again", "base:two", "base"])).toEqual(alone);
    await expect(engine.loadAdapter("third", adapterFolder("two"))).rejects.toThrow(/at most 2 adapters/);

    // A new worker is given what was loaded last, not what was at the start.
    await workers[1].terminate();
    await expect.poll(() => engine.numRestarts === 2 && engine.isReady, { timeout: 20_000 }).toBe(true);
    expect(engine.info.adapters.toSorted()).toEqual(["again", "two"]);
    expect(await textsOf(client, ["base:again", "base:two", "base"])).toEqual(alone);

    // One whose files are gone is left out; the others are served on.
    cpSync(adapterFolder("two"), adapterFolder("moved"), { recursive: true });
    await engine.unloadAdapter("two");
    await engine.loadAdapter("moved", adapterFolder("moved"));
    rmSync(adapterFolder("moved"), { recursive: true });
    await workers[2].terminate();
    await expect.poll(() => engine.numRestarts === 3 && engine.isReady, { timeout: 20_000 }).toBe(true);
    expect(engine.info.adapters).toEqual(["again"]);
    expect(await textsOf(client, ["base:again", "base"])).toEqual([alone[0], alone[2]]);
  }, 60_000);
});

/** `nautilus serve` on the small model; gives what it printed once it is ready. */
async function startServe(...adapters: string[]): Promise<{ child: ChildProcess; page: string }> {
  const where = ["--model", model(), "--model-name", "base", "--port", "0", "--grpc-port", "0"];
  const how = ["--device", "cpu", "--threads", "1", "--no-playground", "--log-level", "silent"];
  const child = spawn(process.execPath, [program, "serve", ...where, ...how, ...adapters], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let page = "";
  child.stdout.setEncoding("utf8");
  for await (const text of child.stdout as AsyncIterable<string>) {
    page += text;
    if (page.includes("Ctrl-C")) break;
  }
  return { child, page };
}

describe("nautilus serve --adapter", () => {
  it("serves each adapter under the model's name and its own", async () => {
    const adapters = ["one", "two"].flatMap((name) => ["--adapter", `${name}=${adapterFolder(name)}`]);
    const { child, page } = await startServe(...adapters);
    try {
      const baseURL = /http:\S+\/v1/.exec(page)?.[0] ?? "";
      expect(Number(/gRPC on port (\d+)/.exec(page)?.[1])).toBeGreaterThan(0);
      const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
      const listed: string[] = [];
      for await (const { id } of client.models.list()) listed.push(id);
      expect(listed).toEqual(["base", "base:one", "base:two"]);
      const together = await textsOf(client, names);
      expect(new Set(together.map((texts) => texts.join("|"))).size).toBe(3);
      for (const [i, name] of names.entries()) expect(await textsOf(client, [name])).toEqual([together[i]]);
    } finally {
      child.kill("SIGKILL");
    }
  }, 60_000);

  it("without a name puts one of any method under all requests", async () => {
    using device = await openDevice({ kind: "cpu", threads: 1 });
    const context = new Context(device);
    using decoder = loadModelFolder(context, model(), "f32");
    writeAdapter(context, decoder, "prompt", { method: "prompt-tuning", numTokens: 3 });
    await using tuned = await openEngine({ ...size, model: model(), adapter: adapterFolder("prompt") });
    await using plain = await openEngine({ ...size, model: model() });
    const wanted = async ({ engine, tokenizer }: OpenEngine): Promise<string> => {
      const sampling = parseSampling({ maxTokens: 10, temperature: 0, stopAtEnd: false });
      let text = "";
      for await (const event of engine.generate({ prompt: [...tokenizer.encode(prompts[0])], sampling }))
        if (event.type !== "prompt") text += event.text;
      return text;
    };
    const { child, page } = await startServe("--adapter", adapterFolder("prompt"));
    try {
      const baseURL = /http:\S+\/v1/.exec(page)?.[0] ?? "";
      const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
      const [[answer]] = await textsOf(client, ["base"]);
      expect(answer).toBe(await wanted(tuned));
      expect(answer).not.toBe(await wanted(plain));
    } finally {
      child.kill("SIGKILL");
    }
  }, 60_000);

  it("refuses one without a name beside others", () => {
    const { status, stderr } = spawnSync(
      process.execPath,
      [program, "serve", "--model", model(), "--adapter", "one=x", "--adapter", adapterFolder("one")],
      { encoding: "utf8" },
    );
    expect([status, stderr]).toEqual([2, expect.stringMatching(/expected name=folder for each of several/)]);
  });
});
