/**
 * Speed and memory of the checkpoint formats: reading safetensors from the page cache against plain reads of the same file, and conversion
 * Hugging Face -> .nemo -> Hugging Face against copying the bytes, with the largest resident set.
 *
 *   node bench/checkpoint.ts [--layers 8] [--width 2048]
 *
 * Needs four times the model's size on the disk of TMPDIR. Writes end in fsync; rates are given by the clock and by processor time.
 */
import {
  closeSync,
  copyFileSync,
  fsyncSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { getRandomValues } from "node:crypto";
import {
  castView,
  huggingFaceView,
  megatronConfig,
  openCheckpoint,
  openCheckpointFolder,
  openNemo,
  tensorPieces,
  writeCheckpointFolder,
  writeNemo,
} from "../src/checkpoint/index.ts";
import type { TensorHeader, TensorSource } from "../src/checkpoint/index.ts";

const { values } = parseArgs({
  options: { layers: { type: "string", default: "8" }, width: { type: "string", default: "2048" } },
});
const width = Number(values.width);
const folder = mkdtempSync(join(tmpdir(), "nautilus-bench-checkpoint-"));
const json = {
  model_type: "nemotron",
  hidden_size: width,
  intermediate_size: 4 * width,
  num_hidden_layers: Number(values.layers),
  num_attention_heads: width / 128,
  num_key_value_heads: width / 512,
  head_dim: 128,
  max_position_embeddings: 4096,
};
const config = megatronConfig(json);

function modelHeaders(): TensorHeader[] {
  const bf16 = (name: string, ...shape: number[]): TensorHeader => ({ name, dtype: "bf16", shape });
  const kvWidth = config.numKvHeads * config.headDim;
  const layers = Array.from({ length: config.numLayers }, (_, i) => {
    const layer = `model.layers.${i}`;
    return [
      bf16(`${layer}.input_layernorm.weight`, width),
      bf16(`${layer}.input_layernorm.bias`, width),
      bf16(`${layer}.self_attn.q_proj.weight`, config.numHeads * config.headDim, width),
      bf16(`${layer}.self_attn.k_proj.weight`, kvWidth, width),
      bf16(`${layer}.self_attn.v_proj.weight`, kvWidth, width),
      bf16(`${layer}.self_attn.o_proj.weight`, width, config.numHeads * config.headDim),
      bf16(`${layer}.post_attention_layernorm.weight`, width),
      bf16(`${layer}.post_attention_layernorm.bias`, width),
      bf16(`${layer}.mlp.up_proj.weight`, 4 * width, width),
      bf16(`${layer}.mlp.down_proj.weight`, width, 4 * width),
    ];
  });
  return [
    bf16("model.embed_tokens.weight", 32000, width),
    ...layers.flat(),
    bf16("model.norm.weight", width),
    bf16("model.norm.bias", width),
    bf16("lm_head.weight", 32000, width),
  ];
}

const random = new Uint8Array(1 << 24);
for (let at = 0; at < random.byteLength; at += 65536) getRandomValues(random.subarray(at, at + 65536));

function* randomPieces(numBytes: number): Generator<Uint8Array> {
  for (let left = numBytes; left > 0; left -= random.byteLength)
    yield random.subarray(0, Math.min(left, random.byteLength));
}

function headersOf(source: TensorSource): TensorHeader[] {
  return [...source.names()].map((name) => ({
    name,
    dtype: source.info(name).dtype,
    shape: source.info(name).shape,
  }));
}

interface Rate {
  clock: number;
  processor: number;
}

/** GB/s of `numBytes` moved by `body`. */
async function rate(numBytes: number, body: () => void | Promise<void>): Promise<Rate> {
  const startedMs = performance.now();
  const started = process.cpuUsage();
  await body();
  const { user, system } = process.cpuUsage(started);
  return {
    clock: numBytes / (performance.now() - startedMs) / 1e6,
    processor: numBytes / (user + system) / 1e3,
  };
}

function print(name: string, { clock, processor }: Rate, limit?: Rate): void {
  const share =
    limit === undefined
      ? ""
      : `${Math.round((100 * processor) / limit.processor)} % of the limit by processor time`;
  process.stdout.write(
    `${name.padEnd(52)} ${clock.toFixed(2).padStart(6)} GB/s  ${processor.toFixed(2).padStart(6)} GB per core-second  ${share}\n`,
  );
}

function readAll(source: TensorSource): void {
  for (const name of source.names()) for (const _ of tensorPieces(source, name));
}

try {
  const headers = modelHeaders();
  const sizes = new Map(headers.map(({ name, shape }) => [name, 2 * shape.reduce((a, b) => a * b, 1)]));
  const numBytes = [...sizes.values()].reduce((a, b) => a + b, 0);
  process.stdout.write(`model of ${(numBytes / 1e9).toFixed(2)} GB\n`);
  const model = join(folder, "model");
  writeCheckpointFolder(model, headers, { dataOf: (name) => randomPieces(sizes.get(name) ?? 0) });
  const file = join(model, "model.safetensors");

  // The machine's memory is given its pages once, outside the figures.
  for (const name of ["a", "b", "c"]) copyFileSync(file, join(folder, name));
  for (const name of ["a", "b", "c"]) rmSync(join(folder, name));

  const plain = (): void => {
    const descriptor = openSync(file, "r");
    const buffer = new Uint8Array(1 << 20);
    while (readSync(descriptor, buffer) > 0);
    closeSync(descriptor);
  };
  plain();
  const limit = await rate(numBytes, plain);
  print("plain reads of 1 MiB from the page cache (limit)", limit);
  using source = openCheckpointFolder(model);
  print("safetensors, in pieces", await rate(numBytes, () => readAll(source)), limit);
  print(
    "safetensors, whole tensors",
    await rate(numBytes, () => [...source.names()].forEach((name) => void source.read(name))),
    limit,
  );
  using cast = castView(openCheckpointFolder(model), "f32");
  print("safetensors, bf16 read as f32 (bytes of bf16)", await rate(numBytes, () => readAll(cast)), limit);

  const copied = join(folder, "copied");
  const copyLimit = await rate(numBytes, () => {
    copyFileSync(file, copied);
    const descriptor = openSync(copied, "r+");
    fsyncSync(descriptor);
    closeSync(descriptor);
  });
  rmSync(copied);
  print("copying the file, with fsync (limit)", copyLimit);
  const nemo = join(folder, "model.nemo");
  print(
    "Hugging Face to .nemo",
    await rate(numBytes, () => writeNemo(nemo, { config, weights: openCheckpointFolder(model) })),
    copyLimit,
  );
  {
    using opened = await openCheckpoint(nemo);
    print(
      ".nemo read under Hugging Face's names",
      await rate(numBytes, () => readAll(opened.weights)),
      limit,
    );
    const toFolder = (): void => {
      writeCheckpointFolder(join(folder, "back"), headersOf(source), {
        dataOf: (name) => tensorPieces(opened.weights, name),
      });
    };
    print(".nemo to Hugging Face", await rate(numBytes, toFolder), copyLimit);
  }
  using megatron = await openNemo(nemo);
  using again = huggingFaceView(megatron.weights, megatron.config);
  if (
    !Buffer.from(again.read("model.layers.0.self_attn.k_proj.weight")).equals(
      source.read("model.layers.0.self_attn.k_proj.weight"),
    )
  ) {
    process.stdout.write("the way back gives other weights\n");
    process.exitCode = 1;
  }
  process.stdout.write(
    `largest resident set ${(process.resourceUsage().maxRSS / 1024).toFixed(0)} MiB; .nemo ${(statSync(nemo).size / 1e9).toFixed(2)} GB; ` +
      `largest tensor ${(Math.max(...sizes.values()) / 2 ** 20).toFixed(0)} MiB\n`,
  );
  const load = readFileSync("/proc/loadavg", "utf8").split(" ")[0];
  process.stdout.write(`load of the machine ${load}\n`);
} finally {
  rmSync(folder, { recursive: true });
}
