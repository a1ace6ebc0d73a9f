/**
 * Loading a model into the CPU backend's memory from the page cache, by format and dtype, against plain reads of the same file in pieces of
 * 1 MiB: into one buffer (what the page cache gives) and into an array of the file's size (new memory, as a model's is). Also the largest
 * resident set beside the weights.
 *
 *   node bench/load-model.ts [--layers 12] [--width 2048]
 *
 * Needs twice the model's size on the disk of TMPDIR and twice in memory. One line is one process.
 */
import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { fileURLToPath } from "node:url";
import { formatBytes } from "../src/base/index.ts";
import { megatronConfig, openCheckpoint, writeNemo } from "../src/checkpoint/index.ts";
import { openDevice } from "../src/device/index.ts";
import {
  checkDecoderConfig,
  Decoder,
  loadCheckpointModel,
  modelPreset,
  saveModelFolder,
} from "../src/models/index.ts";
import { Context } from "../src/tensor/index.ts";

const { values } = parseArgs({
  options: {
    layers: { type: "string", default: "12" },
    width: { type: "string", default: "2048" },
    load: { type: "string" },
    read: { type: "string" },
    new: { type: "boolean", default: false },
    dtype: { type: "string", default: "bf16" },
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
      writeNemo(join(folder, "model.nemo"), { config: megatronConfig(checkpoint.config), weights });
    }
    const file = join(folder, "hf", "model.safetensors");
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
  } finally {
    rmSync(folder, { recursive: true });
  }
}

if (values.load !== undefined) await load(values.load, values.dtype === "f32" ? "f32" : "bf16");
else if (values.read !== undefined) read(values.read, values.new);
else await main();
