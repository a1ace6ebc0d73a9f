/**
 * Memory and speed of `nautilus convert` on a model with the matrices of Nemotron-3-8B (the vocabulary's are its largest: 1.95 GiB each in
 * bf16) and as many layers as asked for. The source is a sparse file, so that only the results take disk. The limit is 4 GB of memory.
 *
 *   node bench/convert.ts [--layers 2]
 *
 * Needs twice the model's size on the disk of TMPDIR: 5.1 GB and 0.4 GB a layer.
 */
import { spawnSync } from "node:child_process";
import {
  ftruncateSync,
  mkdtempSync,
  mkdirSync,
  openSync,
  closeSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { fileURLToPath } from "node:url";
import { dtypeBytes, formatBytes, numElements } from "../src/base/index.ts";
import { modelFamily, modelPreset, parameterSpecs } from "../src/models/index.ts";

const { values } = parseArgs({ options: { layers: { type: "string", default: "2" } } });
const limitBytes = 4e9;
const folder = mkdtempSync(join(tmpdir(), "nautilus-bench-convert-"));
const launcher = fileURLToPath(new URL("../bin/nautilus.js", import.meta.url));
const peakFile = join(folder, "peak");
/** Run before the program: tells its largest resident set when it ends. */
const hook =
  'data:text/javascript,import fs from "node:fs";process.on("exit",()=>fs.writeFileSync(process.env.PEAK_FILE,String(process.resourceUsage().maxRSS)))';

/** A model folder whose weights are a hole of the right length behind a real header. */
function makeSource(path: string): number {
  const config = { ...modelPreset("nemotron-3-8b"), numLayers: Number(values.layers) };
  const family = modelFamily(config);
  mkdirSync(path);
  writeFileSync(join(path, "config.json"), JSON.stringify(family.writeConfig(config, "bfloat16")));
  const shapes = new Map(parameterSpecs(config).map(({ name, shape }) => [name, shape]));
  let offset = 0;
  const entries = family.weightSlices(config).map(({ name, parameter, numRows }) => {
    const shape = [numRows, ...(shapes.get(parameter) ?? []).slice(1)];
    const begin = offset;
    offset += numElements(shape) * dtypeBytes("bf16");
    return [name, { dtype: "BF16", shape, data_offsets: [begin, offset] }] as const;
  });
  const json = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(json.byteLength));
  const descriptor = openSync(join(path, "model.safetensors"), "w");
  writeSync(descriptor, Buffer.concat([prefix, json]));
  ftruncateSync(descriptor, 8 + json.byteLength + offset);
  closeSync(descriptor);
  return offset;
}

function convert(label: string, ...args: string[]): void {
  const startMs = performance.now();
  const { status, stderr } = spawnSync(process.execPath, ["--import", hook, launcher, "convert", ...args], {
    env: { ...process.env, PEAK_FILE: peakFile },
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(stderr);
  const seconds = (performance.now() - startMs) / 1000;
  const peakBytes = Number(readFileSync(peakFile, "utf8")) * 1024;
  console.log(
    `${label.padEnd(34)} peak ${formatBytes(peakBytes).padStart(10)} = ${((100 * peakBytes) / limitBytes).toFixed(1).padStart(4)} % of 4 GB   ` +
      `${seconds.toFixed(1).padStart(6)} s   ${(numBytes / seconds / 1e9).toFixed(2)} GB/s`,
  );
}

const source = join(folder, "source");
const numBytes = makeSource(source);
try {
  console.log(`Nemotron-3-8B's matrices, ${values.layers} layers: ${formatBytes(numBytes)} in bf16`);
  convert("Hugging Face to .nemo", source, join(folder, "model.nemo"));
  convert(".nemo to Hugging Face, verified", join(folder, "model.nemo"), join(folder, "back"), "--verify");
  rmSync(join(folder, "back"), { recursive: true });
  convert(".nemo to Hugging Face in f16", join(folder, "model.nemo"), join(folder, "cast"), "--dtype", "f16");
} finally {
  rmSync(folder, { recursive: true });
}
