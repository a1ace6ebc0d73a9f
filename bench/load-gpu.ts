/**
 * Loading a model folder onto a GPU from the page cache: what the bus gives pinned memory, what reading by threads reaches by their number
 * and the size of their blocks, and seconds from the start of a fresh process to the first token.
 *
 *   node bench/load-gpu.ts [--preset nemotron-3-8b] [--layers 32] [--device cuda] [--sweep 8:8,16:8]
 *
 * Writes a folder of random weights to TMPDIR (17 GB for the whole preset) and removes it. A case of the sweep is THREADS:MIB.
 */
import { spawnSync } from "node:child_process";
import { createReadStream, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { fileURLToPath } from "node:url";
import { formatBytes } from "../src/base/index.ts";
import { openCheckpoint } from "../src/checkpoint/index.ts";
import { createCudaDevice } from "../src/device/cuda/index.ts";
import { CudaMemory } from "../src/device/cuda/memory.ts";
import { PinnedBlock } from "../src/device/cuda/pinned.ts";
import { CudaSession } from "../src/device/cuda/session.ts";
import { openDevice } from "../src/device/index.ts";
import type { DeviceBuffer } from "../src/device/index.ts";
import { createEngine, parseSampling } from "../src/infer/index.ts";
import { Decoder, loadCheckpointModel, modelPreset, saveModelFolder } from "../src/models/index.ts";
import { Context } from "../src/tensor/index.ts";
import { letterTokenizer } from "./serve-gpu-tokenizer.ts";

const { values } = parseArgs({
  options: {
    preset: { type: "string", default: "nemotron-3-8b" },
    layers: { type: "string" },
    device: { type: "string", default: "cuda" },
    sweep: { type: "string", default: "4:8,8:8,14:2,14:8,14:16,24:8" },
    part: { type: "string" },
    folder: { type: "string", default: "" },
  },
});
const kind = values.device === "cpu" ? "cpu" : "cuda";
const secondsSince = (startMs: number): number => (performance.now() - startMs) / 1000;
const rate = (byteLength: number, seconds: number): string =>
  `${(byteLength / seconds / 1e9).toFixed(1)} GB/s`;

async function write(folder: string): Promise<void> {
  const preset = modelPreset(values.preset);
  const config = { ...preset, numLayers: Number(values.layers ?? preset.numLayers) };
  using device = await openDevice({ kind });
  using decoder = new Decoder(new Context(device), config, { dtype: "bf16" });
  decoder.parameters.initialise(1);
  saveModelFolder(decoder, folder);
}

/** Reads the files once, so that they lie in the page cache. */
async function warm(folder: string): Promise<void> {
  for (const name of readdirSync(folder).filter((file) => file.endsWith(".safetensors")))
    for await (const _ of createReadStream(join(folder, name), { highWaterMark: 1 << 24 }));
}

/** Copies out of pinned memory alone, again and again. */
function measureBus(): void {
  const session = new CudaSession(0);
  const { functions } = session;
  const byteLength = 2 ** 26;
  const block = new PinnedBlock(session, byteLength);
  const memory = new CudaMemory(session);
  const target = memory.allocate(byteLength).address;
  const numCopies = 64;
  for (let round = 0; round < 2; round++) {
    const startMs = performance.now();
    for (let i = 0; i < numCopies; i++)
      session.check(
        "cuMemcpyHtoDAsync",
        functions.cuMemcpyHtoDAsync_v2(target, block.address, byteLength, session.stream),
      );
    session.synchronize();
    if (round === 1)
      console.log(`the bus, pinned memory alone: ${rate(numCopies * byteLength, secondsSince(startMs))}`);
  }
  memory.dispose();
  block.dispose();
  session.dispose();
}

/** All tensors into one buffer, by number of threads and size of blocks. */
async function sweep(folder: string): Promise<void> {
  using device = createCudaDevice();
  using checkpoint = await openCheckpoint(folder);
  const { weights } = checkpoint;
  const names = [...weights.names()];
  const total = names.reduce((sum, name) => sum + weights.info(name).byteLength, 0);
  const target: DeviceBuffer = device.allocate(total);
  let byteOffset = 0;
  const transfers = names.flatMap((name) => {
    const range = weights.fileRange?.(name);
    if (range === undefined) return [];
    byteOffset += range.byteLength;
    return [{ ...range, target, byteOffset: byteOffset - range.byteLength }];
  });
  for (const [threads, mebibytes] of values.sweep.split(",").map((text) => text.split(":").map(Number))) {
    const startMs = performance.now();
    const failed = device.uploadFiles(transfers, {
      numThreads: threads,
      blockBytes: mebibytes * 2 ** 20,
      leastBytes: 0,
    });
    const seconds = secondsSince(startMs);
    console.log(
      `${threads} threads, blocks of ${mebibytes} MiB: ${rate(byteOffset, seconds)} of ${formatBytes(byteOffset)} in ${seconds.toFixed(2)} s, ${failed.length} failed`,
    );
  }
  target.dispose();
}

/** From the start of the process, which `performance.now()` counts from. */
async function firstToken(folder: string, isPlain: boolean): Promise<void> {
  const at = (what: string): void =>
    console.log(`  ${(performance.now() / 1000).toFixed(2).padStart(6)} s  ${what}`);
  at("modules loaded");
  const device = await openDevice({ kind });
  if (isPlain) Object.defineProperty(device, "uploadFiles", { value: undefined });
  const context = new Context(device);
  at("device open, kernels there");
  using checkpoint = await openCheckpoint(folder);
  const startMs = performance.now();
  const decoder = loadCheckpointModel(context, checkpoint, "bf16");
  device.synchronize();
  const seconds = secondsSince(startMs);
  const byteLength = [...decoder.parameters].reduce((sum, parameter) => sum + parameter.byteLength, 0);
  at(`weights loaded: ${formatBytes(byteLength)} in ${seconds.toFixed(2)} s, ${rate(byteLength, seconds)}`);
  if (isPlain) return;
  await using engine = createEngine(context, decoder, {
    tokenizer: letterTokenizer(decoder.config.vocabSize),
    endTokens: [],
    cacheTokens: 2 ** 15,
    warmsUp: true,
    release: () => {
      decoder.dispose();
      device.dispose();
    },
  });
  at("engine ready, graphs captured");
  const prompt = Array.from({ length: 128 }, (_, i) => i + 5);
  const sampling = parseSampling({ temperature: 0, maxTokens: 2, minTokens: 2, stopAtEnd: false });
  for await (const event of engine.generate({ prompt, sampling })) {
    if (event.type !== "token") continue;
    at("first token");
    break;
  }
}

function part(name: string, folder: string): void {
  const args = ["--part", name, "--folder", folder, "--preset", values.preset, "--device", kind];
  const more = values.layers === undefined ? [] : ["--layers", values.layers];
  const startMs = performance.now();
  const { status } = spawnSync(
    process.execPath,
    [fileURLToPath(import.meta.url), ...args, "--sweep", values.sweep, ...more],
    { stdio: "inherit" },
  );
  console.log(
    `${name}: ${secondsSince(startMs).toFixed(1)} s${status === 0 ? "" : `, ended with ${status}`}`,
  );
}

const parts: Readonly<Record<string, (folder: string) => void | Promise<void>>> = {
  write,
  warm,
  bus: measureBus,
  sweep,
  "by one thread": (folder) => firstToken(folder, true),
  "first token": (folder) => firstToken(folder, false),
};
if (values.part !== undefined) await parts[values.part](values.folder);
else {
  const folder = mkdtempSync(join(tmpdir(), "nautilus-bench-load-"));
  try {
    const isGpu = kind === "cuda";
    for (const name of Object.keys(parts)) if (isGpu || !["bus", "sweep"].includes(name)) part(name, folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
