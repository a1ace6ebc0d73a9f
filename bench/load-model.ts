/**
 * Loading a model into the CPU backend's memory from the page cache, by format and dtype, against plain reads of the same file in pieces of
 * 1 MiB: into one buffer (what the page cache gives) and into an array of the file's size (new memory, as a model's is). Also the largest
 * resident set beside the weights.
 *
 * Then weights mapped against weights read, from a file of ours and from one as others write them: until the model is there, until the first token of
 * a prompt of eight, tokens a second, and the memory of one process and of two at once, with the file in the page cache or not.
 *
 *   node bench/load-model.ts [--layers 12] [--width 2048] [--only load|map] [--runs 3]
 *
 * Needs three times the model's size on the disk of TMPDIR and twice in memory. One line is one process, or the two that run at once.
 */
import { spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { fileURLToPath } from "node:url";
import { formatBytes } from "../src/base/index.ts";
import {
  megatronConfig,
  openCheckpoint,
  openSafetensors,
  tensorPieces,
  writeNemo,
  writeSafetensors,
} from "../src/checkpoint/index.ts";
import { openDevice } from "../src/device/index.ts";
import { createEngine, parseSampling } from "../src/infer/index.ts";
import {
  checkDecoderConfig,
  Decoder,
  loadCheckpointModel,
  mapCheckpointWeights,
  modelPreset,
  saveModelFolder,
} from "../src/models/index.ts";
import { Context } from "../src/tensor/index.ts";
import { plainTokenizer } from "../test/plain-tokenizer.ts";

const { values } = parseArgs({
  options: {
    layers: { type: "string", default: "12" },
    width: { type: "string", default: "2048" },
    load: { type: "string" },
    read: { type: "string" },
    new: { type: "boolean", default: false },
    dtype: { type: "string", default: "bf16" },
    run: { type: "string" },
    mmap: { type: "boolean", default: false },
    only: { type: "string" },
    runs: { type: "string", default: "3" },
  },
});

function report(line: Record<string, number>): void {
  console.log(JSON.stringify(line));
}

async function load(path: string, dtype: "bf16" | "f32"): Promise<void> {
  using device = await openDevice({ kind: "cpu" });
  const context = new Context(device);
  const startMs = performance.now();
  using checkpoint = await openCheckpoint(path);
  using model = loadCheckpointModel(context, checkpoint, dtype);
  device.synchronize();
  const seconds = (performance.now() - startMs) / 1000;
  const weightBytes = [...model.parameters].reduce((total, { byteLength }) => total + byteLength, 0);
  const besideBytes = process.resourceUsage().maxRSS * 1024 - device.memory().liveBytes;
  report({ seconds, weightBytes, besideBytes });
}

/** Plain reads, all to one place or each to one that no page has been given yet. */
function read(path: string, isNew: boolean): void {
  const { size } = statSync(path);
  const pieceBytes = 1 << 20;
  const memory = new Uint8Array(isNew ? size : pieceBytes);
  const descriptor = openSync(path, "r");
  const startMs = performance.now();
  for (let offset = 0; offset < size;) {
    offset += readSync(descriptor, memory, isNew ? offset : 0, Math.min(pieceBytes, size - offset), offset);
  }
  report({ seconds: (performance.now() - startMs) / 1000, weightBytes: size, besideBytes: 0 });
  closeSync(descriptor);
}

/** Bytes of this process by the system's count: resident, its share of what others have too, and what is in no file, which only swap could take. */
function memoryOfProcess(): { residentBytes: number; shareBytes: number; anonymousBytes: number } {
  const text = readFileSync("/proc/self/smaps_rollup", "utf8");
  const bytesOf = (name: string): number =>
    1024 * Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1]);
  return {
    residentBytes: bytesOf("Rss"),
    shareBytes: bytesOf("Pss"),
    anonymousBytes: bytesOf("Anonymous"),
  };
}

const numTokens = 48;
const fileName = "model.safetensors";

/** Opens the model and generates; tells its times, and its memory once a line comes: others may run by then. */
async function run(path: string, isMapped: boolean): Promise<void> {
  using device = await openDevice({ kind: "cpu" });
  const context = new Context(device);
  const startMs = performance.now();
  const since = (ms: number): number => (performance.now() - ms) / 1000;
  const decoder = await (async () => {
    using checkpoint = await openCheckpoint(path);
    using mapped = isMapped ? mapCheckpointWeights(context, checkpoint, "bf16") : undefined;
    return loadCheckpointModel(context, checkpoint, { dtype: "bf16", mapped });
  })();
  const readySeconds = since(startMs);
  {
    await using engine = createEngine(context, decoder, {
      tokenizer: plainTokenizer(decoder.config.vocabSize),
      endTokens: [],
      cacheTokens: 256,
      release: () => decoder.dispose(),
    });
    const prompt = [1, 2, 3, 4, 5, 6, 7, 8];
    const sampling = parseSampling({ temperature: 0, maxTokens: numTokens });
    const times: number[] = [];
    for await (const event of engine.generate({ prompt, sampling }))
      if (event.type === "token") times.push(performance.now());
    const firstSeconds = (times[0] - startMs) / 1000;
    const gaps = times.slice(1).map((time, i) => time - times[i]);
    const tokensPerSecond = 1000 / gaps.toSorted((a, b) => a - b)[Math.floor(gaps.length / 2)];
    report({ readySeconds, firstSeconds, tokensPerSecond });
    await new Promise((resolve) => process.stdin.once("data", resolve));
    report(memoryOfProcess());
    await new Promise((resolve) => process.stdin.once("data", resolve));
  }
  process.stdin.destroy();
}

type RunTimes = Record<"readySeconds" | "firstSeconds" | "tokensPerSecond", number>;
type RunMemory = ReturnType<typeof memoryOfProcess>;

/** A process of `run`, asked line by line. */
class RunningModel {
  readonly #child;
  readonly #lines: AsyncIterator<string>;

  constructor(path: string, isMapped: boolean) {
    const args = [fileURLToPath(import.meta.url), "--run", path, ...(isMapped ? ["--mmap"] : [])];
    this.#child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] });
    this.#lines = linesOf(this.#child.stdout);
  }

  async times(): Promise<RunTimes> {
    return JSON.parse(await this.#next()) as RunTimes;
  }

  async memory(): Promise<RunMemory> {
    this.#child.stdin.write("memory\n");
    return JSON.parse(await this.#next()) as RunMemory;
  }

  async end(): Promise<void> {
    this.#child.stdin.write("end\n");
    await new Promise((resolve) => this.#child.once("exit", resolve));
  }

  async #next(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error("the process ended early");
    return value;
  }
}

async function* linesOf(stream: NodeJS.ReadableStream): AsyncGenerator<string> {
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + chunk.toString()).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

/**
 * A folder with the same model as `transformers` writes it: tensors by name, so that query, key and value lie apart, and data that begins at a
 * multiple of 8 and of no more.
 */
function writeAsPublished(from: string, to: string): void {
  mkdirSync(to);
  copyFileSync(join(from, "config.json"), join(to, "config.json"));
  using source = openSafetensors(join(from, fileName));
  const path = join(to, fileName);
  const headers = [...source.names()].toSorted().map((name) => ({ ...source.info(name), name }));
  writeSafetensors(path, headers, {
    metadata: { format: "pt" },
    dataOf: (name) => tensorPieces(source, name),
  });
  const bytes = readFileSync(path);
  const end = 8 + Number(bytes.readBigUInt64LE());
  bytes.writeBigUInt64LE(BigInt(end));
  writeFileSync(path, Buffer.concat([bytes.subarray(0, end), Buffer.alloc(8, " "), bytes.subarray(end)]));
}

/** Takes a file out of the page cache (GNU dd asks for it). */
function evict(file: string): void {
  const asks = ["oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"];
  const { status, stderr } = spawnSync("dd", [`of=${file}`, ...asks], { encoding: "utf8" });
  if (status !== 0) throw new Error(stderr);
}

interface MappingCase {
  label: string;
  folder: string;
  isMapped: boolean;
}

/** By turns, and the best of each time: others share the machine. */
async function compareMapped({ ours, published }: { ours: string; published: string }): Promise<void> {
  const cases: MappingCase[] = [
    { label: "mapped, file of ours", folder: ours, isMapped: true },
    { label: "mapped, file as published", folder: published, isMapped: true },
    { label: "read", folder: published, isMapped: false },
  ];
  const line = (label: string, text: string): void => console.log(`${label.padEnd(44)} ${text}`);
  for (const isCold of [false, true]) {
    const found = new Map(cases.map(({ label }) => [label, new Array<RunTimes>()]));
    const memory = new Map<string, RunMemory>();
    for (let round = 0; round < Number(values.runs); round++) {
      for (const { label, folder, isMapped } of cases) {
        if (isCold) evict(join(folder, fileName));
        const model = new RunningModel(folder, isMapped);
        found.get(label)?.push(await model.times());
        memory.set(label, await model.memory());
        await model.end();
      }
    }
    for (const { label } of cases) {
      const of = (name: keyof RunTimes): number[] => (found.get(label) ?? []).map((times) => times[name]);
      const seconds = (name: "readySeconds" | "firstSeconds"): string => Math.min(...of(name)).toFixed(2);
      const held = memory.get(label);
      line(
        `${label}, from ${isCold ? "the disk" : "the page cache"}`,
        `ready ${seconds("readySeconds")} s, first token ${seconds("firstSeconds")} s, ${Math.max(...of("tokensPerSecond")).toFixed(1)} tokens/s` +
          `   ${held === undefined ? "" : memoryText(held)}`,
      );
    }
  }
  for (const { label, folder, isMapped } of cases.slice(1)) {
    const models = [new RunningModel(folder, isMapped), new RunningModel(folder, isMapped)];
    await Promise.all(models.map((model) => model.times()));
    for (const model of models) line(`${label}, one of two`, memoryText(await model.memory()));
    for (const model of models) await model.end();
  }
}

function memoryText({ residentBytes, shareBytes, anonymousBytes }: RunMemory): string {
  return `resident ${formatBytes(residentBytes)}, its share ${formatBytes(shareBytes)}, anonymous ${formatBytes(anonymousBytes)}`;
}

interface Measured {
  seconds: number;
  weightBytes: number;
  besideBytes: number;
}

/** The best of three processes: others share the machine. */
function measure(...args: string[]): Measured {
  const runs = Array.from({ length: 3 }, () => {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [fileURLToPath(import.meta.url), ...args],
      {
        encoding: "utf8",
      },
    );
    if (status !== 0) throw new Error(stderr);
    return JSON.parse(stdout) as Measured;
  });
  return runs.toSorted((a, b) => a.seconds - b.seconds)[0];
}

async function main(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "nautilus-bench-load-"));
  try {
    const width = Number(values.width);
    const config = checkDecoderConfig({
      ...modelPreset("nemotron-3-8b"),
      vocabSize: 32000,
      width,
      ffnWidth: 4 * width,
      numLayers: Number(values.layers),
      numHeads: width / 128,
      numKvHeads: width / 512,
    });
    {
      using device = await openDevice({ kind: "cpu" });
      using decoder = new Decoder(new Context(device), config, { dtype: "bf16" });
      decoder.parameters.initialise(1);
      saveModelFolder(decoder, join(folder, "hf"));
      using checkpoint = await openCheckpoint(join(folder, "hf"));
      const { weights } = checkpoint;
      if (values.only !== "map")
        writeNemo(join(folder, "model.nemo"), { config: megatronConfig(checkpoint.config), weights });
    }
    if (values.only !== "map") compareReads(folder);
    if (values.only !== "load") {
      const [ours, published] = [join(folder, "hf"), join(folder, "published")];
      writeAsPublished(ours, published);
      await compareMapped({ ours, published });
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function compareReads(folder: string): void {
  const file = join(folder, "hf", fileName);
  const limit = measure("--read", file);
  const rate = ({ weightBytes, seconds }: Measured): number => weightBytes / seconds / 1e9;
  console.log(`model of ${formatBytes(limit.weightBytes)} in bf16`);
  const line = (label: string, bytesPerSecond: number, more = ""): void =>
    console.log(
      `${label.padEnd(34)} ${bytesPerSecond.toFixed(2).padStart(6)} GB/s of the file  ${((100 * bytesPerSecond) / rate(limit)).toFixed(0).padStart(4)} %   ${more}`,
    );
  line("plain reads into one buffer", rate(limit));
  line("plain reads into new memory", rate(measure("--read", file, "--new")));
  for (const [label, path, dtype] of [
    ["safetensors, bf16 as bf16", "hf", "bf16"],
    [".nemo, bf16 as bf16", "model.nemo", "bf16"],
    ["safetensors, bf16 as f32", "hf", "f32"],
  ]) {
    const measured = measure("--load", join(folder, path), "--dtype", dtype);
    const ofFile = limit.weightBytes / measured.seconds / 1e9;
    line(
      label,
      ofFile,
      `${measured.seconds.toFixed(2)} s, ${formatBytes(measured.besideBytes)} beside the weights`,
    );
  }
}

if (values.load !== undefined) await load(values.load, values.dtype === "f32" ? "f32" : "bf16");
else if (values.run !== undefined) await run(values.run, values.mmap);
else if (values.read !== undefined) read(values.read, values.new);
else await main();
