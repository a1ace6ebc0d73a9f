/**
 * Loading a model folder onto a GPU from the page cache: what the bus gives pinned memory, what reads alone give of these very files, what
 * reading and copying reach by their threads and the size of their blocks, with the parts of each, from how many bytes on threads pay, and
 * seconds from the start of a fresh process to the first token.
 *
 *   node bench/load-gpu.ts [--preset nemotron-3-8b] [--layers 32] [--device cuda] [--sweep 8:4,12:4] [--folder DIR]
 *
 * Writes a folder of random weights to TMPDIR (17 GB for the whole preset) and removes it. With --folder the one there is used, or else
 * written there, and kept. A case of the sweep is THREADS:MIB.
 */
import { spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { fileURLToPath } from "node:url";
import { formatBytes } from "../src/base/index.ts";
import { openCheckpoint } from "../src/checkpoint/index.ts";
import { FileReaders, readsPerThread } from "../src/device/cuda/fileReaders.ts";
import { createCudaDevice, type CudaDevice } from "../src/device/cuda/index.ts";
import { CudaMemory } from "../src/device/cuda/memory.ts";
import { PinnedBlock } from "../src/device/cuda/pinned.ts";
import { adviseHugePages, hugePageBytes } from "../src/device/cuda/pinnedRing.ts";
import { CudaSession } from "../src/device/cuda/session.ts";
import { openSystemLibrary } from "../src/device/cuda/systemLibrary.ts";
import { viewMemory } from "../src/device/ffi.ts";
import { openDevice } from "../src/device/index.ts";
import type { FileTransfer } from "../src/device/index.ts";
import { createEngine, parseSampling } from "../src/infer/index.ts";
import { Decoder, loadCheckpointModel, modelPreset, saveModelFolder } from "../src/models/index.ts";
import { Context } from "../src/tensor/index.ts";
import { letterTokenizer } from "./serve-gpu-tokenizer.ts";

const { values } = parseArgs({
  options: {
    preset: { type: "string", default: "nemotron-3-8b" },
    layers: { type: "string" },
    device: { type: "string", default: "cuda" },
    sweep: { type: "string", default: "8:4,10:4,12:1,12:2,12:4,12:8,14:4,16:2,16:4" },
    part: { type: "string" },
    folder: { type: "string", default: "" },
  },
});
const kind = values.device === "cpu" ? "cpu" : "cuda";
const secondsSince = (startMs: number): number => (performance.now() - startMs) / 1000;
const rate = (byteLength: number, seconds: number): string =>
  `${(byteLength / seconds / 1e9).toFixed(1)} GB/s`;
const mebibyte = 2 ** 20;
/** Of reads alone. */
const largestBlockBytes = 8 * mebibyte;

function systemLibrary() {
  const library = openSystemLibrary();
  if (library === undefined) throw new Error("expected glibc, got none: nothing reads by threads here");
  return library;
}
const cases = (): { numThreads: number; mebibytes: number }[] =>
  values.sweep.split(",").map((text) => {
    const [numThreads, mebibytes] = text.split(":").map(Number);
    return { numThreads, mebibytes };
  });

async function write(folder: string): Promise<void> {
  const preset = modelPreset(values.preset);
  const config = { ...preset, numLayers: Number(values.layers ?? preset.numLayers) };
  using device = await openDevice({ kind });
  using decoder = new Decoder(new Context(device), config, { dtype: "bf16" });
  decoder.parameters.initialise(1);
  saveModelFolder(decoder, folder);
}

const weightFiles = (folder: string): string[] =>
  existsSync(folder) ? readdirSync(folder).filter((file) => file.endsWith(".safetensors")) : [];

/** Bytes a second of copies of `pieceBytes` out of pinned memory alone. */
function measureCopies(session: CudaSession, pieceBytes: number): number {
  const { functions } = session;
  const memory = new CudaMemory(session);
  const block = new PinnedBlock(session, pieceBytes);
  const target = memory.allocate(pieceBytes).address;
  const numCopies = Math.ceil(2 ** 32 / pieceBytes);
  let seconds = 0;
  for (let round = 0; round < 2; round++) {
    const startMs = performance.now();
    for (let i = 0; i < numCopies; i++)
      session.check(
        "cuMemcpyHtoDAsync",
        functions.cuMemcpyHtoDAsync_v2(target, block.address, pieceBytes, session.stream),
      );
    session.synchronize();
    seconds = secondsSince(startMs);
  }
  memory.dispose();
  block.dispose();
  return (numCopies * pieceBytes) / seconds;
}

function measureBus(): void {
  const session = new CudaSession(0);
  for (const mebibytes of [1, 2, 4, 8, 64])
    console.log(
      `the bus, pinned memory alone, copies of ${mebibytes} MiB: ${rate(measureCopies(session, mebibytes * mebibyte), 1)}`,
    );
  session.dispose();
}

/** Reads alone into ordinary memory in huge pages, up to 8 GB. */
function measureReads(folder: string): void {
  const library = systemLibrary();
  // Open to the end: threads have duplicates of a descriptor, whose number must not become another file's.
  const files = weightFiles(folder).map((name) => {
    const path = join(folder, name);
    return { descriptor: openSync(path, "r"), byteLength: statSync(path).size };
  });
  const read = (numThreads: number, mebibytes: number): string => {
    const blockBytes = mebibytes * mebibyte;
    const numSlots = readsPerThread * numThreads;
    const memory = library.aligned_alloc(hugePageBytes, numSlots * largestBlockBytes);
    library.madvise(memory, numSlots * largestBlockBytes, adviseHugePages);
    new Uint8Array(viewMemory(memory, numSlots * largestBlockBytes)).fill(1);
    const startMs = performance.now();
    const readers = new FileReaders(library, { numSlots, numThreads });
    const free = Array.from({ length: numSlots }, (_, slot) => slot);
    let numBytes = 0;
    let numFailed = 0;
    const take = (): void => {
      for (const { slot, isWhole } of readers.take()) {
        free.push(slot);
        if (!isWhole) numFailed++;
      }
    };
    for (const { descriptor, byteLength } of files)
      for (let position = 0; position + blockBytes <= byteLength && numBytes < 8e9; position += blockBytes) {
        while (!readers.hasRoom || free.length === 0) take();
        const slot = free.pop() ?? 0;
        const address = memory + slot * largestBlockBytes;
        if (!readers.post(slot, { descriptor, position, byteLength: blockBytes, address })) numFailed++;
        numBytes += blockBytes;
      }
    readers.dispose();
    const seconds = secondsSince(startMs);
    library.free(memory);
    return `${rate(numBytes, seconds)}${numFailed === 0 ? "" : `, ${numFailed} failed`}`;
  };
  console.log(`reads alone, to bring the files into the page cache: ${read(8, 4)}`);
  for (const numThreads of [1, 2, 4, 8, 10, 12, 14, 16])
    console.log(`reads alone, ${numThreads} threads, blocks of 4 MiB: ${read(numThreads, 4)}`);
  for (const mebibytes of [1, 2, 8])
    console.log(`  12 threads, blocks of ${mebibytes} MiB: ${read(12, mebibytes)}`);
  for (const { descriptor } of files) closeSync(descriptor);
}

/** Where all tensors lie, and a place for each in one buffer. */
async function withTransfers(
  folder: string,
  body: (device: CudaDevice, transfers: readonly FileTransfer[], totalBytes: number) => void,
): Promise<void> {
  using device = createCudaDevice();
  using checkpoint = await openCheckpoint(folder);
  const { weights } = checkpoint;
  const names = [...weights.names()];
  const total = names.reduce((sum, name) => sum + weights.info(name).byteLength, 0);
  const startMs = performance.now();
  const target = device.allocate(total);
  console.log(`${formatBytes(total)} on the GPU allocated in ${secondsSince(startMs).toFixed(3)} s`);
  let byteOffset = 0;
  const transfers = names.flatMap((name) => {
    const range = weights.fileRange?.(name);
    if (range === undefined) return [];
    byteOffset += range.byteLength;
    return [{ ...range, target, byteOffset: byteOffset - range.byteLength }];
  });
  body(device, transfers, byteOffset);
  target.dispose();
}

/** All tensors into one buffer, by number of threads and size of blocks. */
async function sweep(folder: string): Promise<void> {
  const session = new CudaSession(0);
  const bus = measureCopies(session, 64 * mebibyte);
  session.dispose();
  await withTransfers(folder, (device, transfers, totalBytes) => {
    for (const { numThreads, mebibytes } of cases()) {
      const phases: string[] = [];
      const startMs = performance.now();
      let lastMs = startMs;
      const failed = device.uploadFiles(transfers, {
        numThreads,
        blockBytes: mebibytes * mebibyte,
        leastBytes: 0,
        onPhase: (phase) => {
          const nowMs = performance.now();
          phases.push(`${phase} ${(nowMs - lastMs).toFixed(1)}`);
          lastMs = nowMs;
        },
      });
      const seconds = secondsSince(startMs);
      const share = ((100 * totalBytes) / seconds / bus).toFixed(1);
      console.log(
        `${numThreads} threads, blocks of ${mebibytes} MiB: ${rate(totalBytes, seconds)}, ${share} % of the bus's ${rate(bus, 1)}; ` +
          `${formatBytes(totalBytes)} in ${seconds.toFixed(3)} s, ${failed.length} failed\n  ms: ${phases.join(", ")}`,
      );
    }
    leastSizes(device, transfers);
  });
}

/** From how many bytes on threads are faster than reading and uploading piece by piece, in a process that has read before. */
function leastSizes(device: CudaDevice, transfers: readonly FileTransfer[]): void {
  const largest = transfers.reduce((most, each) => (each.byteLength > most.byteLength ? each : most));
  const piece = new Uint8Array(2 * mebibyte);
  for (const mebibytes of [4, 8, 16, 32, 64, 128, 256, 512]) {
    const transfer = {
      ...largest,
      onRead: undefined,
      byteLength: Math.min(mebibytes * mebibyte, largest.byteLength),
    };
    const { descriptor, position, byteLength, target, byteOffset } = transfer;
    const bestMs = (body: () => void): string => {
      const times = [0, 1, 2, 3, 4].map(() => {
        const startMs = performance.now();
        body();
        device.synchronize();
        return performance.now() - startMs;
      });
      return `${Math.min(...times).toFixed(2)} ms (first ${times[0].toFixed(2)})`;
    };
    const threads = bestMs(() => device.uploadFiles([transfer], { leastBytes: 0 }));
    const plain = bestMs(() => {
      for (let at = 0; at < byteLength; at += piece.length) {
        const part = piece.subarray(0, Math.min(piece.length, byteLength - at));
        readSync(descriptor, part, 0, part.length, position + at);
        device.upload(target, byteOffset + at, part);
      }
    });
    console.log(`${formatBytes(byteLength)}: by threads ${threads}, piece by piece ${plain}`);
  }
}

/** From the start of the process, which `performance.now()` counts from. */
async function firstToken(folder: string, isPlain: boolean): Promise<void> {
  const at = (what: string): void =>
    console.log(`  ${(performance.now() / 1000).toFixed(2).padStart(6)} s  ${what}`);
  at("modules loaded");
  const device = await openDevice({ kind });
  const uploadFiles = isPlain ? undefined : device.uploadFiles?.bind(device);
  let uploadSeconds = 0;
  const timed = (transfers: readonly FileTransfer[]): FileTransfer[] => {
    const startMs = performance.now();
    const left = uploadFiles?.(transfers) ?? [...transfers];
    uploadSeconds += secondsSince(startMs);
    return left;
  };
  Object.defineProperty(device, "uploadFiles", { value: uploadFiles && timed });
  const context = new Context(device);
  at("device open, kernels there");
  using checkpoint = await openCheckpoint(folder);
  const startMs = performance.now();
  const decoder = loadCheckpointModel(context, checkpoint, "bf16");
  device.synchronize();
  const seconds = secondsSince(startMs);
  const byteLength = [...decoder.parameters].reduce((sum, parameter) => sum + parameter.byteLength, 0);
  at(`weights loaded: ${formatBytes(byteLength)} in ${seconds.toFixed(3)} s, ${rate(byteLength, seconds)}`);
  if (uploadFiles !== undefined)
    at(`  of it, files onto the GPU ${uploadSeconds.toFixed(3)} s, ${rate(byteLength, uploadSeconds)}`);
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

/** Whether it went well. */
function part(name: string, folder: string): boolean {
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
  return status === 0;
}

const parts: Readonly<Record<string, (folder: string) => void | Promise<void>>> = {
  write,
  bus: measureBus,
  reads: measureReads,
  sweep,
  "by one thread": (folder) => firstToken(folder, true),
  "first token": (folder) => firstToken(folder, false),
};
if (values.part !== undefined) await parts[values.part](values.folder);
else {
  const isKept = values.folder !== "";
  const folder = isKept ? values.folder : mkdtempSync(join(tmpdir(), "nautilus-bench-load-"));
  try {
    const isThere = weightFiles(folder).length > 0;
    for (const name of Object.keys(parts)) {
      if ((name === "write" && isThere) || (kind !== "cuda" && ["bus", "reads", "sweep"].includes(name)))
        continue;
      if (!part(name, folder) && name === "write") break;
    }
  } finally {
    if (!isKept) rmSync(folder, { recursive: true });
  }
}
