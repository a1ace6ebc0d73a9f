/** Models whose weights are mapped: the numbers of models that are read, from every layout of a checkpoint, and nothing of them can be written. */
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { platform, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CheckpointError, ConfigError, DeviceError, OutOfMemoryError } from "../../src/base/index.ts";
import type { FloatDtype } from "../../src/base/index.ts";
import {
  observedView,
  openCheckpoint,
  openSafetensors,
  writeSafetensors,
} from "../../src/checkpoint/index.ts";
import { CpuDevice } from "../../src/device/cpu/device.ts";
import { createCpuDevice } from "../../src/device/cpu/index.ts";
import { openDevice } from "../../src/device/index.ts";
import {
  checkDecoderConfig,
  createAdapter,
  Decoder,
  loadCheckpointModel,
  loadWeights,
  mapCheckpointWeights,
  mergeAdapter,
  modelFamily,
  modelPreset,
  parseAdapterConfig,
  saveModelFolder,
} from "../../src/models/index.ts";
import type { AdapterMethod, DecoderConfig } from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { tinyConfig } from "../tiny-model.ts";

const llamaConfig = checkDecoderConfig({
  ...modelPreset("llama-3.2-1b"),
  vocabSize: 64,
  width: 32,
  ffnWidth: 48,
  numLayers: 2,
  numHeads: 4,
  numKvHeads: 2,
  headDim: 8,
  maxPositions: 64,
  rotary: { rotaryDim: 8, base: 10000 },
  initStd: 0.2,
});

let root: string;
let device: CpuDevice;
let context: Context;

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), "nautilus-mapping-"));
  device = await createCpuDevice({ threads: 2 });
  context = new Context(device);
});
afterEach(() => {
  expect(device.memory()).toMatchObject({ liveBytes: 0, mappedBytes: 0 });
  device.dispose();
  rmSync(root, { recursive: true });
});

function writeModel(dtype: FloatDtype, config: DecoderConfig = tinyConfig): string {
  const folder = join(root, `${config.family}-${dtype}`);
  using decoder = new Decoder(context, config, { dtype });
  decoder.parameters.initialise(7);
  saveModelFolder(decoder, folder);
  return folder;
}

interface Layout {
  name: string;
  /** Bytes of padding of the header, so that data begins at another multiple. */
  padding?: number;
  /** How many files. */
  shards?: number;
}

/** The same model with its tensors by name, as `transformers` writes them: query, key and value do not lie together. */
function rewrite(folder: string, { name, padding = 0, shards = 1 }: Layout): string {
  const target = `${folder}-${name}`;
  mkdirSync(target);
  copyFileSync(join(folder, "config.json"), join(target, "config.json"));
  using source = openSafetensors(join(folder, "model.safetensors"));
  const names = [...source.names()].toSorted();
  const weightMap: Record<string, string> = {};
  for (let shard = 0; shard < shards; shard++) {
    const own = names.filter((_, i) => i % shards === shard);
    const file = shards === 1 ? "model.safetensors" : `part-${shard}.safetensors`;
    for (const tensor of own) weightMap[tensor] = file;
    const headers = own.map((tensor) => ({ ...source.info(tensor), name: tensor }));
    writeSafetensors(join(target, file), headers, { dataOf: (tensor) => [source.read(tensor)] });
    if (padding > 0) padHeader(join(target, file), padding);
  }
  if (shards > 1)
    writeFileSync(join(target, "model.safetensors.index.json"), JSON.stringify({ weight_map: weightMap }));
  return target;
}

/** Spaces after the header's JSON, as the format allows. */
function padHeader(file: string, padding: number): void {
  const bytes = readFileSync(file);
  const length = Number(bytes.readBigUInt64LE(0));
  bytes.writeBigUInt64LE(BigInt(length + padding), 0);
  const end = 8 + length;
  writeFileSync(
    file,
    Buffer.concat([bytes.subarray(0, end), Buffer.alloc(padding, " "), bytes.subarray(end)]),
  );
}

async function open(
  folder: string,
  { dtype, mmap, on = context }: { dtype: FloatDtype; mmap: boolean; on?: Context },
): Promise<Decoder> {
  using checkpoint = await openCheckpoint(folder);
  using mapped = mmap ? mapCheckpointWeights(on, checkpoint, dtype) : undefined;
  return loadCheckpointModel(on, checkpoint, { dtype, mapped });
}

function logitsOf(decoder: Decoder, on = context): Float64Array {
  const tokens = Array.from({ length: 24 }, (_, i) => (i * 7 + 3) % 64);
  return on.scope(() => {
    const upload = (values: readonly number[]) => on.tensor(values, [values.length], "i32");
    const batch = { tokens: upload(tokens), positions: upload(tokens.map((_, i) => i % 12)) };
    const hidden = decoder.forward(on, { ...batch, numSequences: 2, sequenceLength: 12 });
    return decoder.logits(on, hidden).toArray();
  });
}

const mappedBytes = (): number => device.memory().mappedBytes ?? 0;

/** Bytes of the matrices: what can be mapped of a model whose file has its dtype. */
function matrixBytes({ parameters, stacked }: Decoder): number {
  const matrices = [...parameters].filter(({ shape }) => shape.length === 2);
  return [...matrices, ...stacked.values()].reduce((total, { byteLength }) => total + byteLength, 0);
}

const layouts: readonly Layout[] = [
  { name: "by-name" },
  { name: "padded-8", padding: 8 },
  { name: "padded-24", padding: 24 },
  { name: "padded-4", padding: 4 },
  { name: "padded-2", padding: 2 },
  { name: "padded-1", padding: 1 },
  { name: "shards", shards: 3, padding: 8 },
];

describe.each([tinyConfig, llamaConfig])("a $family model", (config) => {
  describe.each(["f32", "bf16"] as const)("in %s", (dtype) => {
    it("as this program writes it lies in one piece, parameter by parameter", async () => {
      const folder = writeModel(dtype, config);
      using read = await open(folder, { dtype, mmap: false });
      const readBytes = device.memory().liveBytes;
      using mapped = await open(folder, { dtype, mmap: true });
      expect(mapped.stacked.size).toBe(0);
      expect(mappedBytes()).toBeGreaterThanOrEqual(matrixBytes(mapped));
      expect(device.memory().liveBytes - readBytes).toBe(readBytes - matrixBytes(read));
      expect(logitsOf(mapped)).toEqual(logitsOf(read));
    });

    it.each(layouts)("is the same from $name", async (layout) => {
      const folder = writeModel(dtype, config);
      using read = await open(folder, { dtype, mmap: false });
      const readBytes = device.memory().liveBytes;
      using mapped = await open(rewrite(folder, layout), { dtype, mmap: true });
      const isAligned = (layout.padding ?? 0) % (dtype === "f32" ? 4 : 2) === 0;
      expect(mappedBytes() > 0).toBe(isAligned);
      const expected = isAligned ? readBytes - matrixBytes(read) : readBytes;
      expect(device.memory().liveBytes - readBytes).toBe(expected);
      // Query, key and value; gate and up lie together by name unless they are in several files.
      if (isAligned) expect(mapped.stacked.has("layers.0.attention.qkv.weight")).toBe(true);
      expect(logitsOf(mapped)).toEqual(logitsOf(read));
    });
  });
});

it("takes what is not as the file has it from plain reads: another dtype, transposed, quantised", async () => {
  const folder = rewrite(writeModel("bf16"), { name: "by-name" });
  {
    using converted = await open(folder, { dtype: "f32", mmap: true });
    using read = await open(folder, { dtype: "f32", mmap: false });
    expect(mappedBytes()).toBe(0);
    expect(logitsOf(converted)).toEqual(logitsOf(read));
  }
  {
    using checkpoint = await openCheckpoint(folder);
    const options = { dtype: "bf16", quantise: "int8" } as const;
    using weights = mapCheckpointWeights(context, checkpoint, options);
    using quantised = loadCheckpointModel(context, checkpoint, { ...options, mapped: weights });
    using read = loadCheckpointModel(context, checkpoint, options);
    expect([...weights.whole.keys()]).toEqual(["embedding.weight", "head.weight"]);
    expect(logitsOf(quantised)).toEqual(logitsOf(read));
  }
  const gpt2 = fileURLToPath(new URL("../fixtures/golden/families/gpt2", import.meta.url));
  using transposed = await open(gpt2, { dtype: "f32", mmap: true });
  using read = await open(gpt2, { dtype: "f32", mmap: false });
  expect(mappedBytes()).toBeGreaterThan(0);
  expect(transposed.stacked.size).toBe(0);
  expect(logitsOf(transposed)).toEqual(logitsOf(read));
});

it("outlives the checkpoint and another decoder on the same files, and frees them with the last", async () => {
  const folder = rewrite(writeModel("bf16"), { name: "shards", shards: 2 });
  const maps = (): number =>
    platform() === "linux" ? readFileSync("/proc/self/maps", "utf8").split(folder).length - 1 : 0;
  const first = await open(folder, { dtype: "bf16", mmap: true });
  const expected = logitsOf(first);
  const bytes = mappedBytes();
  const second = await open(folder, { dtype: "bf16", mmap: true });
  expect(mappedBytes()).toBe(2 * bytes);
  first.dispose();
  expect(mappedBytes()).toBe(bytes);
  expect(maps()).toBe(platform() === "linux" ? 2 : 0);
  expect(logitsOf(second)).toEqual(expected);
  second.dispose();
  expect([mappedBytes(), maps()]).toEqual([0, 0]);
});

it("counts every byte once as read, mapped or not", async () => {
  const folder = rewrite(writeModel("bf16"), { name: "by-name" });
  using checkpoint = await openCheckpoint(folder);
  const counts = new Map<string, number>();
  const weights = observedView(checkpoint.weights, (name, byteLength) => {
    counts.set(name, (counts.get(name) ?? 0) + byteLength);
  });
  const observed = { ...checkpoint, weights };
  using mapped = mapCheckpointWeights(context, observed, "bf16");
  using _decoder = loadCheckpointModel(context, observed, { dtype: "bf16", mapped });
  const names = [...weights.names()];
  expect(counts).toEqual(new Map(names.map((name) => [name, weights.info(name).byteLength])));
});

describe("what cannot be mapped is read", () => {
  it("on a system without mmap, and on a device with memory of its own", async () => {
    const folder = writeModel("bf16");
    using read = await open(folder, { dtype: "bf16", mmap: false });
    using without = new CpuDevice({ ...device.kernels, map: () => 0 }, 2);
    const on = new Context(without);
    using fallen = await open(folder, { dtype: "bf16", mmap: true, on });
    expect(logitsOf(fallen, on)).toEqual(logitsOf(read));
    // Reading writes to the arenas: nothing is left that a write would be refused of.
    fallen.parameters.initialise(1);
    using reference = await openDevice({ kind: "reference" });
    using plain = await open(folder, { dtype: "bf16", mmap: true, on: new Context(reference) });
    plain.parameters.initialise(1);
  });

  it("file by file, where the system refuses some", async () => {
    const folder = writeModel("bf16");
    using read = await open(folder, { dtype: "bf16", mmap: false });
    const { kernels } = device;
    let count = 0;
    using partly = new CpuDevice(
      { ...kernels, map: (...args) => (count++ % 2 === 0 ? kernels.map(...args) : 0) },
      2,
    );
    const on = new Context(partly);
    using mapped = await open(rewrite(folder, { name: "shards", shards: 4 }), {
      dtype: "bf16",
      mmap: true,
      on,
    });
    expect(count).toBe(4);
    expect(partly.memory().mappedBytes).toBeGreaterThan(0);
    expect(logitsOf(mapped, on)).toEqual(logitsOf(read));
  });

  it("and a file that was cut short says so", async () => {
    const folder = writeModel("bf16");
    using checkpoint = await openCheckpoint(folder);
    const file = join(folder, "model.safetensors");
    truncateSync(file, statSync(file).size - 1000);
    using mapped = mapCheckpointWeights(context, checkpoint, "bf16");
    expect(mapped.byteLength).toBe(0);
    expect(() => loadCheckpointModel(context, checkpoint, { dtype: "bf16", mapped })).toThrow(
      CheckpointError,
    );
    await expect(open(folder, { dtype: "bf16", mmap: true })).rejects.toThrow(CheckpointError);
  });
});

describe("mapped weights", () => {
  it("cannot be written by anything, which a sentence says", async () => {
    const folder = rewrite(writeModel("f32"), { name: "by-name" });
    using decoder = await open(folder, { dtype: "f32", mmap: true });
    const before = readFileSync(join(folder, "model.safetensors"));
    const merge = (method: AdapterMethod): void => {
      const config = parseAdapterConfig({ method });
      using adapter = createAdapter(decoder, { family: modelFamily(tinyConfig), config, dtype: "f32" });
      mergeAdapter(context, decoder, adapter);
    };
    using checkpoint = await openCheckpoint(folder);
    for (const write of [
      () => merge("lora"),
      () => merge("dora"),
      () => merge("ia3"),
      () => loadWeights(context, decoder, checkpoint.weights),
    ]) {
      expect(write).toThrow(ConfigError);
      expect(write).toThrow("expected weights in memory, which can be changed, got some that a file shows");
    }
    expect(() => decoder.parameters.initialise(3)).toThrow(DeviceError);
    expect(() => decoder.head.set(new Float64Array(decoder.head.numElements))).toThrow(DeviceError);
    using mapped = mapCheckpointWeights(context, checkpoint, "f32");
    expect(() => new Decoder(context, tinyConfig, { dtype: "f32", gradientDtype: "f32", mapped })).toThrow(
      "what is trained lies in arenas",
    );
    expect(readFileSync(join(folder, "model.safetensors"))).toEqual(before);
  });

  it("are refused by a model that is held in another way than they show", async () => {
    using checkpoint = await openCheckpoint(rewrite(writeModel("bf16"), { name: "by-name" }));
    using mapped = mapCheckpointWeights(context, checkpoint, "bf16");
    const smaller = { ...tinyConfig, vocabSize: 32 };
    for (const [config, options, message] of [
      [
        tinyConfig,
        { dtype: "f32" },
        "expected of mapped weights embedding.weight (64, 32) in f32, got (64, 32) in bf16",
      ],
      [tinyConfig, { dtype: "bf16", quantise: "int8" }, "no layers.0.attention.qkv.weight in floats"],
      [smaller, { dtype: "bf16" }, "embedding.weight (32, 32) in bf16, got (64, 32) in bf16"],
    ] as const) {
      const make = (): Decoder => new Decoder(context, config, { ...options, mapped });
      expect(make).toThrow(ConfigError);
      expect(make).toThrow(message);
    }
  });

  it("are let go, with everything else, where there is no room for the rest", async () => {
    const folder = rewrite(writeModel("bf16"), { name: "by-name" });
    const { kernels } = device;
    let room = Number.POSITIVE_INFINITY;
    // Idle memory would serve again: a device for each amount of room.
    const openWith = async (
      mmap: boolean,
      quantise: "int8" | undefined,
      numBlocks: number,
    ): Promise<void> => {
      room = Number.POSITIVE_INFINITY;
      const allocate: typeof kernels.allocate = (...args) => (room-- > 0 ? kernels.allocate(...args) : 0);
      using narrow = new CpuDevice({ ...kernels, allocate }, 1);
      const on = new Context(narrow);
      using checkpoint = await openCheckpoint(folder);
      const options = { dtype: "bf16", quantise } as const;
      room = numBlocks;
      try {
        using mapped = mmap ? mapCheckpointWeights(on, checkpoint, options) : undefined;
        using _decoder = loadCheckpointModel(on, checkpoint, { ...options, mapped });
      } finally {
        expect(narrow.memory()).toMatchObject({ numLiveBuffers: 0, liveBytes: 0, mappedBytes: 0 });
      }
    };
    for (const mmap of [true, false])
      for (const quantise of [undefined, "int8"] as const) {
        const fits = async (numBlocks: number): Promise<boolean> => {
          try {
            await openWith(mmap, quantise, numBlocks);
            return true;
          } catch (error) {
            expect(error).toBeInstanceOf(OutOfMemoryError);
            return false;
          }
        };
        let numBlocks = 0;
        while (!(await fits(numBlocks))) numBlocks++;
        expect(numBlocks).toBeGreaterThan(quantise === undefined ? 1 : 8);
      }
  });

  it("can be saved: the same tensors", async () => {
    const folder = rewrite(writeModel("bf16", llamaConfig), { name: "shards", shards: 2 });
    using mapped = await open(folder, { dtype: "bf16", mmap: true });
    expect(mapped.stacked.size).toBe(4);
    saveModelFolder(mapped, join(root, "saved"));
    using saved = openSafetensors(join(root, "saved", "model.safetensors"));
    using original = await openCheckpoint(folder);
    for (const name of original.weights.names())
      expect(saved.read(name)).toEqual(original.weights.read(name));
  });

  it.each(["lora", "dora", "ia3"] as const)("take adapters: %s", async (method) => {
    const folder = rewrite(writeModel("f32"), { name: "by-name" });
    const adapted = async (mmap: boolean): Promise<Float64Array> => {
      using decoder = await open(folder, { dtype: "f32", mmap });
      const config = parseAdapterConfig({ method });
      using adapter = createAdapter(decoder, { family: modelFamily(tinyConfig), config, dtype: "f32" });
      // As they begin, some adapters change nothing.
      for (const [seed, y] of [...adapter.parameters].entries())
        device.run("randomNormal", { y, numElements: y.numElements, seed, counter: 0, mean: 0.5, std: 0.3 });
      return decoder.withAdapter(adapter, () => logitsOf(decoder));
    };
    const [read, mapped] = [await adapted(false), await adapted(true)];
    expect(mapped).toEqual(read);
    using plain = await open(folder, { dtype: "f32", mmap: false });
    expect(read).not.toEqual(logitsOf(plain));
  });
});
