/** The measurements behind `nautilus bench gpu`: each times work on random values, best of several runs, device idle before and after. */
import { ModelRunner, SteadyBatch } from "../../infer/index.ts";
import { countMatmulParameters, Decoder, operationsPerToken } from "../../models/index.ts";
import type { DecoderConfig } from "../../models/index.ts";
import { matmulInto, selfAttention, Tape, watch } from "../../tensor/index.ts";
import type { Context, Tensor } from "../../tensor/index.ts";

export interface BenchFigure {
  name: string;
  value: number;
  unit: string;
  /** The physical limit in the same unit. */
  limit?: number | undefined;
  details?: string | undefined;
  peer?: number | undefined;
  /** Which of the peer's lines this is, and its field. */
  isPeerLine: (line: Readonly<Record<string, unknown>>) => boolean;
  peerField: string;
}

/** Of one H200: bf16 dense rate by the datasheet, matmul rate and read bandwidth as measured (docs/performance.md). */
const peakTflops = 989;
export const matmulTflops = 787;
const bandwidthBytes = 4.45e12;

/** Seconds of one call, the best of `numRuns` after a warm-up, each over `perRun` calls in a row. */
export function time(
  context: Context,
  body: () => void,
  { numRuns = 5, perRun = 1 }: { numRuns?: number; perRun?: number } = {},
): number {
  body();
  context.device.synchronize();
  let best = Infinity;
  for (let run = 0; run < numRuns; run++) {
    const startMs = performance.now();
    for (let call = 0; call < perRun; call++) body();
    context.device.synchronize();
    best = Math.min(best, (performance.now() - startMs) / 1000 / perRun);
  }
  return best;
}

function random(context: Context, shape: readonly number[], seed: number, std = 1): Tensor {
  const y = context.empty(shape, "bf16");
  context.device.run("randomNormal", { y, numElements: y.numElements, seed, counter: 0, mean: 0, std });
  return y;
}

/**
 * Seconds of a call as the peer's benchmark counts it: about 0.1 s of calls on a card that was idle before, each after a fill of 256 MiB,
 * whose own time is taken off.
 */
function timeFlushed(context: Context, body: () => void): number {
  const options = { numRuns: 1, perRun: 60 };
  return context.scope(() => {
    const y = context.empty([2 ** 27], "bf16");
    const flush = (): void => context.device.run("fill", { y, numElements: y.numElements, value: 0 });
    const fill = time(context, flush, options);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
    const both = time(
      context,
      () => {
        flush();
        body();
      },
      options,
    );
    return both - fill;
  });
}

export function measureMatmul(context: Context): BenchFigure[] {
  const shapes = [
    { m: 8192, n: 8192, k: 8192 },
    { m: 8192, n: 16384, k: 4096 },
    { m: 8192, n: 4096, k: 16384 },
    { m: 8192, n: 12288, k: 4096 },
  ];
  return shapes.map((shape) =>
    context.scope(() => {
      const { m, n, k } = shape;
      const [a, b, c] = [
        random(context, [m, k], 1),
        random(context, [n, k], 2),
        context.empty([m, n], "bf16"),
      ];
      const product = (): void => matmulInto(context, { a, b, c }, { ...shape, transposeB: true });
      const lasting = time(context, product, { perRun: 20 });
      const seconds = timeFlushed(context, product);
      return {
        name: `matmul ${m}x${n}x${k}`,
        value: (2 * m * n * k) / seconds / 1e12,
        unit: "TFLOP/s",
        limit: peakTflops,
        details: `${((2 * m * n * k) / lasting / 1e12).toFixed(0)} back to back`,
        isPeerLine: (line) =>
          line["what"] === "gemm" && line["M"] === m && line["N"] === n && line["K"] === k,
        peerField: "tflops",
      };
    }),
  );
}

export function measureAttention(context: Context): BenchFigure[] {
  const heads = { numHeads: 32, numKvHeads: 32, headDim: 128 };
  const [numSequences, sequenceLength] = [2, 4096];
  const operations = (2 * 2 * numSequences * heads.numHeads * sequenceLength ** 2 * heads.headDim) / 2;
  return context.scope(() => {
    const qkv = random(context, [numSequences * sequenceLength, 3 * 4096], 3);
    const gradient = random(context, [numSequences * sequenceLength, 4096], 4);
    const options = { heads, numSequences, sequenceLength };
    const forward = time(context, () => context.scope(() => void selfAttention(context, qkv, options)), {
      perRun: 10,
    });
    watch(qkv);
    const both = time(
      context,
      () =>
        context.scope(() => {
          using tape = new Tape();
          const output = context.withTape(tape, () => selfAttention(context, qkv, options));
          tape.backward(context, [{ tensor: output, gradient }]);
          qkv.variable?.dispose();
        }),
      { perRun: 10 },
    );
    const figure = (name: string, value: number, peerField: string): BenchFigure => ({
      name,
      value,
      unit: "TFLOP/s",
      limit: peakTflops,
      isPeerLine: (line) => line["what"] === "sdpa",
      peerField,
    });
    return [
      figure("attention forward", operations / forward / 1e12, "fwd_tflops"),
      figure("attention backward", (2.5 * operations) / (both - forward) / 1e12, "bwd_tflops"),
    ];
  });
}

export function measurePrefill(context: Context, config: DecoderConfig): BenchFigure[] {
  const numTokens = config.maxPositions;
  using decoder = new Decoder(context, config, { dtype: "bf16" });
  decoder.parameters.initialise(1);
  const tokens = Int32Array.from({ length: numTokens }, (_, row) => (row * 7919 + 13) % config.vocabSize);
  const seconds = context.scope(() => {
    const upload = (values: Int32Array): Tensor => context.tensor(values, [values.length], "i32");
    const positions = upload(tokens.map((_, row) => row));
    const batch = { tokens: upload(tokens), positions, numSequences: 1, sequenceLength: numTokens };
    return time(
      context,
      () =>
        context.scope(() => {
          const hidden = decoder.forward(context, batch);
          decoder.logits(context, context.adopt(hidden.rows(numTokens - 1, numTokens)));
        }),
      { numRuns: 5, perRun: 4 },
    );
  });
  const { forward } = operationsPerToken(config, numTokens);
  const operations = forward - 2 * config.vocabSize * config.width;
  return [
    {
      name: "prefill 4096",
      value: numTokens / seconds,
      unit: "tok/s",
      limit: (matmulTflops * 1e12) / operations,
      details: `${((numTokens * operations) / seconds / 1e12).toFixed(0)} TFLOP/s`,
      isPeerLine: (line) => line["what"] === "prefill",
      peerField: "tokens_per_s",
    },
  ];
}

/** Decode steps at contexts of 128 to 192 tokens, sampled on the device, one graph launch a step. */
export function measureDecode(context: Context, config: DecoderConfig, batch: number): BenchFigure[] {
  // As many steps before as the peer makes.
  const [firstContext, numWarmUp, numSteps, blockSize] = [128, 6, 64, 64];
  const maxContext = 1024;
  using decoder = new Decoder(context, config, { dtype: "bf16" });
  decoder.parameters.initialise(1);
  const blocksEach = (firstContext + 2 * numSteps) / blockSize + 1;
  const cache = { blockSize, numBlocks: batch * blocksEach, maxSequences: batch };
  using runner = new ModelRunner(context, decoder, { ...cache, maxContext });
  const prompt = Array.from(
    { length: firstContext },
    (_, position) => (position * 7919 + 13) % config.vocabSize,
  );
  const prompts = Array.from({ length: batch }, () => prompt);
  const maxStepRows = Math.max(2048, batch);
  const steady = new SteadyBatch(runner, { ...cache, maxStepRows, prompts, maxNewTokens: 2 * numSteps });
  for (let step = 0; step < numWarmUp; step++) steady.step();
  steady.settle();
  const startMs = performance.now();
  for (let step = 0; step < numSteps; step++) steady.step();
  steady.settle();
  const seconds = (performance.now() - startMs) / 1000 / numSteps;
  const weightBytes = 2 * countMatmulParameters(config);
  const cacheBytes =
    batch *
    (firstContext + numWarmUp + numSteps / 2) *
    4 *
    config.numLayers *
    config.numKvHeads *
    config.headDim;
  return [
    {
      name: `decode batch ${batch}`,
      value: batch / seconds,
      unit: "tok/s",
      limit: (batch * bandwidthBytes) / (weightBytes + cacheBytes),
      details: `${(seconds * 1e3).toFixed(2)} ms a step`,
      isPeerLine: (line) => line["what"] === "decode" && line["bs"] === batch,
      peerField: "tok_per_s",
    },
  ];
}
