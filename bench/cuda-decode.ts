/**
 * What a decoding step of the 8.54 B model does beside its products: microseconds per operator, queued one after another in a graph as a
 * layer queues them, and the time that its bytes take at 4,300 GB/s.
 * `node bench/cuda-decode.ts [--only attention] [--cache codes] [BATCH:CONTEXT:MOST-CONTEXT[:BLOCK[:LAYERS]] ...]`
 * What reads or writes the cache runs over one of bf16 and one of E4M3 codes (`--cache bf16` or `--cache codes`: over one of them).
 * With LAYERS above 1 attention alone, over so many caches in turn, as a model reads them, with each sequence's blocks in order and far apart; then
 * what a layer does from the QKV product to the output product, with rotary and the cache write in a launch of their own and within attention.
 */
import { parseArgs } from "node:util";
import { createCudaDevice } from "../src/device/cuda/index.ts";
import type { Dtype } from "../src/base/index.ts";
import type { TensorArgument } from "../src/device/index.ts";

const bandwidth = 4300;
const width = 4096;
const ffnWidth = 16_384;
const numHeads = 32;
const headDim = 128;
const vocabSize = 256_000;
const numRepeats = 64;

const device = createCudaDevice();
await device.prepareKernels();
console.log(device.description);

const buffers: TensorArgument[] = [];
function tensor(dtype: Dtype, numElements: number, value = 0): TensorArgument {
  const bytes = { f32: 4, bf16: 2, f16: 2, f64: 8, i32: 4, i64: 8, u8: 1 }[dtype];
  const made = { buffer: device.allocate(numElements * bytes), byteOffset: 0, dtype };
  device.run("fill", { y: made, numElements, value });
  buffers.push(made);
  return made;
}

/** Microseconds per call of `queue` within a graph of so many. */
function measure(queue: () => void, repeats = numRepeats): number {
  using graph = device.capture(() => {
    for (let i = 0; i < repeats; i++) queue();
  });
  let best = Infinity;
  for (let round = 0; round < 6; round++) {
    device.synchronize();
    const start = performance.now();
    for (let replay = 0; replay < 5; replay++) graph.replay();
    device.synchronize();
    best = Math.min(best, (performance.now() - start) / (5 * repeats));
  }
  return best * 1000;
}

const { values: options, positionals: cases } = parseArgs({
  allowPositionals: true,
  options: { only: { type: "string", default: "" }, cache: { type: "string", default: "bf16,codes" } },
});

function report(label: string, bytes: number, queue: () => void, repeats = numRepeats): void {
  if (!label.includes(options.only)) return;
  const us = measure(queue, repeats);
  const limitUs = bytes / (bandwidth * 1e3);
  console.log(
    `${label.padEnd(44)} ${us.toFixed(2).padStart(8)} us, limit ${limitUs.toFixed(2).padStart(7)} us ${((100 * limitUs) / us).toFixed(0).padStart(4)} %`,
  );
}

const cacheForms = (["bf16", "codes"] as const).filter((form) => options.cache.split(",").includes(form));
type CacheForm = (typeof cacheForms)[number];

interface LayerCache {
  kCache: TensorArgument;
  vCache: TensorArgument;
  kScales?: TensorArgument;
  vScales?: TensorArgument;
  numSlots: number;
}

function layerCache(form: CacheForm, numSlots: number): LayerCache {
  // The code of 0.5.
  const half = (): TensorArgument =>
    form === "bf16" ? tensor("bf16", numSlots * width, 0.5) : tensor("u8", numSlots * width, 0x30);
  const caches = { kCache: half(), vCache: half(), numSlots };
  if (form === "bf16") return caches;
  const scales = (): TensorArgument => tensor("f32", numSlots * numHeads, 0.01);
  return { ...caches, kScales: scales(), vScales: scales() };
}

/** Of keys and values. */
const tokenBytes: Readonly<Record<CacheForm, number>> = {
  bf16: 4 * width,
  codes: 2 * (width + 4 * numHeads),
};

function benchBatch(batch: number, context: number, maxContext: number, blockSize = 16): void {
  const qkvWidth = 3 * width;
  const qkv = tensor("bf16", batch * qkvWidth, 0.5);
  const x = tensor("bf16", batch * width, 1);
  const y = tensor("bf16", batch * width, 1);
  const gain = tensor("bf16", width, 0.1);
  const hidden = tensor("bf16", batch * ffnWidth, 1);
  const positions = tensor("i32", batch, context - 1);
  const cosSin = tensor("f32", maxContext * 64, 0.5);
  const maxBlocksPerSequence = Math.ceil(maxContext / blockSize);
  const numSlots = batch * Math.ceil(context / blockSize) * blockSize;
  const slots = tensor("i32", batch, 3);
  const blockTables = tensor("i32", batch * maxBlocksPerSequence);
  const tables = new Int32Array(batch * maxBlocksPerSequence);
  const blocks = Math.ceil(context / blockSize);
  for (let row = 0; row < batch; row++)
    for (let i = 0; i < blocks; i++) tables[row * maxBlocksPerSequence + i] = row * blocks + i;
  device.upload(blockTables.buffer, 0, new Uint8Array(tables.buffer));
  const contextLengths = tensor("i32", batch, context);
  const queryStarts = tensor("i32", batch + 1);
  device.upload(
    queryStarts.buffer,
    0,
    new Uint8Array(Int32Array.from({ length: batch + 1 }, (_, i) => i).buffer),
  );
  const at = (elements: number): TensorArgument => ({ ...qkv, byteOffset: elements * 2 });
  const name = `batch ${batch}, context ${context} of ${maxContext}, blocks of ${blockSize}:`;
  report(`${name} layer norm with addition`, batch * width * 8, () =>
    device.run("layerNormForward", {
      x,
      addend: y,
      gain,
      bias: gain,
      sum: x,
      y,
      numRows: batch,
      width,
      eps: 1e-5,
      gainOffset: 1,
    }),
  );
  report(`${name} rotary`, batch * 2 * width * 2, () =>
    device.run("rotary", {
      x: qkv,
      positions,
      cosSin,
      y: qkv,
      numRows: batch,
      numHeads: 2 * numHeads,
      headDim,
      rotaryDim: 64,
      xRowStride: qkvWidth,
      yRowStride: qkvWidth,
      inverse: 0,
    }),
  );
  for (const form of cacheForms) {
    const caches = layerCache(form, numSlots);
    const written = {
      k: at(width),
      v: at(2 * width),
      slots,
      ...caches,
      numRows: batch,
      numKvHeads: numHeads,
      headDim,
      kRowStride: qkvWidth,
      vRowStride: qkvWidth,
    };
    const writtenBytes = batch * (4 * width + tokenBytes[form]);
    report(`${name} cache write, ${form}`, writtenBytes, () => device.run("kvCacheWrite", written));
    const turned = { q: qkv, positions, cosSin, numHeads, rotaryDim: 64, qRowStride: qkvWidth };
    report(`${name} rotary and cache write in one, ${form}`, writtenBytes + batch * 2 * width, () =>
      device.run("rotaryCacheWrite", { ...written, ...turned }),
    );
    report(`${name} attention, ${form}`, batch * context * tokenBytes[form], () =>
      device.run("attentionPaged", {
        q: qkv,
        ...caches,
        blockTables,
        contextLengths,
        queryStarts,
        o: y,
        numSequences: batch,
        maxQueryLength: 1,
        numHeads,
        numKvHeads: numHeads,
        headDim,
        blockSize,
        maxBlocksPerSequence,
        qRowStride: qkvWidth,
        oRowStride: width,
        scale: 0.088,
      }),
    );
  }
  report(`${name} squared ReLU`, batch * ffnWidth * 4, () =>
    device.run("activationForward", { x: hidden, y: hidden, numElements: batch * ffnWidth, kind: 4 }),
  );
  const logits = tensor("f32", batch * vocabSize);
  device.run("randomNormal", {
    y: logits,
    numElements: batch * vocabSize,
    seed: 1,
    counter: 0,
    mean: 0,
    std: 3,
  });
  for (const [label, topK, topP, temperature] of [
    ["greedy", 0, 1, 0],
    ["topK 50, topP 0.9", 50, 0.9, 0.8],
    ["topP 0.9 alone", 0, 0.9, 0.7],
    ["no cut", 0, 1, 1],
  ] as const) {
    const settings = {
      temperature: tensor("f32", batch, temperature),
      topK: tensor("i32", batch, topK),
      topP: tensor("f32", batch, topP),
      minP: tensor("f32", batch),
      seeds: tensor("i64", batch),
      counters: tensor("i64", batch),
      tokens: tensor("i32", batch),
      logprobs: tensor("f32", batch),
    };
    report(`${name} sample, ${label}`, batch * vocabSize * 4, () =>
      device.run("sample", { logits, ...settings, numRows: batch, vocabSize }),
    );
  }
  for (const { buffer } of buffers.splice(0)) buffer.dispose();
}

/** Attention of a whole model: another cache for each layer, and each sequence's blocks far apart. */
function benchLayers(
  {
    batch,
    context,
    maxContext,
    blockSize,
    numLayers,
  }: Record<"batch" | "context" | "maxContext" | "blockSize" | "numLayers", number>,
  { form, isScattered }: { form: CacheForm; isScattered: boolean },
): void {
  const maxBlocksPerSequence = Math.ceil(maxContext / blockSize);
  const blocks = Math.ceil(context / blockSize);
  const caches = Array.from({ length: numLayers }, () => layerCache(form, batch * blocks * blockSize));
  const tables = new Int32Array(batch * maxBlocksPerSequence);
  for (let row = 0; row < batch; row++)
    for (let i = 0; i < blocks; i++)
      tables[row * maxBlocksPerSequence + i] = isScattered ? i * batch + row : row * blocks + i;
  const upload = (values: Int32Array): TensorArgument => {
    const made = tensor("i32", values.length);
    device.upload(made.buffer, 0, new Uint8Array(values.buffer));
    return made;
  };
  const blockTables = upload(tables);
  const queryStarts = upload(Int32Array.from({ length: batch + 1 }, (_, i) => i));
  const contextLengths = tensor("i32", batch, context);
  const q = tensor("bf16", batch * width, 0.5);
  const o = tensor("bf16", batch * width, 0.5);
  let layer = 0;
  const name = `batch ${batch}, context ${context}, blocks of ${blockSize}, ${numLayers} layers, ${isScattered ? "scattered" : "in order"}, ${form}`;
  report(name, batch * context * tokenBytes[form], () => {
    const heads = { numHeads, numKvHeads: numHeads, headDim };
    const strides = { qRowStride: width, oRowStride: width };
    device.run("attentionPaged", {
      q,
      ...caches[layer++ % numLayers],
      blockTables,
      contextLengths,
      queryStarts,
      o,
      numSequences: batch,
      maxQueryLength: 1,
      ...heads,
      blockSize,
      maxBlocksPerSequence,
      ...strides,
      scale: 0.088,
    });
  });
  for (const { buffer } of buffers.splice(0)) buffer.dispose();
}

/**
 * From the QKV product to the output product, each layer with weights and a cache of its own, once a graph: as in a model's step, no kernel
 * before attention's writes its cache or the step's inputs.
 */
function benchBetweenProducts(
  {
    batch,
    context,
    maxContext,
    blockSize,
    numLayers,
  }: Record<"batch" | "context" | "maxContext" | "blockSize" | "numLayers", number>,
  form: CacheForm,
): void {
  const qkvWidth = 3 * width;
  const maxBlocksPerSequence = Math.ceil(maxContext / blockSize);
  const blocks = Math.ceil(context / blockSize);
  const upload = (values: Int32Array): TensorArgument => {
    const made = tensor("i32", values.length);
    device.upload(made.buffer, 0, new Uint8Array(values.buffer));
    return made;
  };
  const perSequence = (value: (sequence: number) => number): TensorArgument =>
    upload(Int32Array.from({ length: batch }, (_, sequence) => value(sequence)));
  const tables = Int32Array.from(
    { length: batch * maxBlocksPerSequence },
    (_, i) => Math.floor(i / maxBlocksPerSequence) * blocks + (i % maxBlocksPerSequence),
  );
  const layers = Array.from({ length: numLayers }, () => ({
    caches: layerCache(form, batch * blocks * blockSize),
    qkvWeight: tensor("bf16", qkvWidth * width, 0.01),
    outputWeight: tensor("bf16", width * width, 0.01),
  }));
  const x = tensor("bf16", batch * width, 0.5);
  const qkv = tensor("bf16", batch * qkvWidth, 0.5);
  const o = tensor("bf16", batch * width, 0.5);
  const shared = {
    q: qkv,
    k: { ...qkv, byteOffset: 2 * width },
    v: { ...qkv, byteOffset: 4 * width },
    positions: perSequence(() => context - 1),
    cosSin: tensor("f32", maxContext * 64, 0.5),
    slots: perSequence((sequence) => sequence * blocks * blockSize + context - 1),
    blockTables: upload(tables),
    contextLengths: perSequence(() => context),
    queryStarts: upload(Int32Array.from({ length: batch + 1 }, (_, i) => i)),
    o,
    numSequences: batch,
    numHeads,
    numKvHeads: numHeads,
    headDim,
    rotaryDim: 64,
    blockSize,
    maxBlocksPerSequence,
    qRowStride: qkvWidth,
    kRowStride: qkvWidth,
    vRowStride: qkvWidth,
    oRowStride: width,
    scale: 0.088,
  };
  const product = (a: TensorArgument, b: TensorArgument, c: TensorArgument, n: number): void =>
    device.run("matmul", {
      a,
      b,
      c,
      bias: undefined,
      m: batch,
      n,
      k: width,
      lda: width,
      ldb: width,
      ldc: n,
      transposeA: 0,
      transposeB: 1,
      alpha: 1,
      beta: 0,
    });
  const bytes = 2 * width * (qkvWidth + width) + batch * context * tokenBytes[form];
  const ways: Record<string, ((caches: LayerCache) => void) | undefined> = {
    "products alone": undefined,
    "attention, two launches": (caches) => {
      device.run("rotaryCacheWrite", { ...shared, ...caches, numRows: batch });
      device.run("attentionPaged", { ...shared, ...caches, maxQueryLength: 1 });
    },
    "attention, one launch": (caches) => device.run("rotaryAttentionPaged", { ...shared, ...caches }),
  };
  for (const [label, attend] of Object.entries(ways)) {
    let next = 0;
    report(
      `batch ${batch}, context ${context}, ${form}, between products: ${label}`,
      attend === undefined ? 2 * width * (qkvWidth + width) : bytes,
      () => {
        const { caches, qkvWeight, outputWeight } = layers[next++ % numLayers];
        product(x, qkvWeight, qkv, qkvWidth);
        attend?.(caches);
        product(o, outputWeight, x, width);
      },
      numLayers,
    );
  }
  for (const { buffer } of buffers.splice(0)) buffer.dispose();
}

const given = cases.map((text) => text.split(":").map(Number));
const standard = [
  [1, 160, 1024],
  [1, 4096, 4096],
  [16, 160, 1024],
  [64, 192, 1024],
  [256, 192, 1024],
  [64, 1500, 2048],
  [64, 4096, 4096],
];
for (const [batch, context, maxContext, blockSize, numLayers = 1] of given.length > 0 ? given : standard) {
  if (numLayers === 1) benchBatch(batch, context, maxContext, blockSize);
  else {
    const setting = { batch, context, maxContext, blockSize, numLayers };
    for (const form of cacheForms) {
      for (const isScattered of [false, true]) benchLayers(setting, { form, isScattered });
      benchBetweenProducts(setting, form);
    }
  }
}
device.dispose();
