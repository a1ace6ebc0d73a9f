/**
 * The 10 M-parameter Nemotron (hidden 256, 6 layers, sequence 512, 8k vocabulary) on the CPU: training against the rate of a large matrix
 * product in the same run, and generating one sequence against the bandwidth of reading the weights.
 *
 * usage: node bench/model-cpu.ts [--threads N] [--precision f32|bf16] [--json]
 */
import { parseArgs } from "node:util";
import { openDevice } from "../src/device/index.ts";
import type { Device } from "../src/device/index.ts";
import { ModelRunner, SteadyBatch } from "../src/infer/index.ts";
import type { StepRunner } from "../src/infer/index.ts";
import { countMatmulParameters, Decoder, nemotronPreset, operationsPerToken } from "../src/models/index.ts";
import { Context, matmulInto } from "../src/tensor/index.ts";
import type { Tensor } from "../src/tensor/index.ts";
import { AdamW, TrainingStep } from "../src/train/index.ts";

type Precision = "f32" | "bf16";

const { values } = parseArgs({
  options: {
    threads: { type: "string" },
    precision: { type: "string", default: "f32" },
    json: { type: "boolean", default: false },
  },
});
const precision: Precision = values.precision === "bf16" ? "bf16" : "f32";
const config = nemotronPreset("nemotron-10m");
const sequenceLength = 512;
const numSequences = 8;

/** Best of several runs, in seconds. */
function best(device: Device, numRuns: number, body: () => void): number {
  let seconds = Infinity;
  for (let run = 0; run <= numRuns; run++) {
    const startMs = performance.now();
    body();
    device.synchronize();
    if (run > 0) seconds = Math.min(seconds, (performance.now() - startMs) / 1000);
  }
  return seconds;
}

function random(context: Context, shape: readonly number[], dtype: Precision): Tensor {
  const y = context.empty(shape, dtype);
  context.device.run("randomNormal", { y, numElements: y.numElements, seed: 1, counter: 0, mean: 0, std: 1 });
  return y;
}

/** Operations per second of a 2048^3 product. */
function matmulRate(context: Context): number {
  const size = 2048;
  return context.scope(() => {
    const [a, b, c] = [0, 1, 2].map(() => random(context, [size, size], precision));
    const shape = { m: size, n: size, k: size, transposeB: true };
    return (2 * size ** 3) / best(context.device, 3, () => matmulInto(context, { a, b, c }, shape));
  });
}

/** Bytes per second of reading as much memory as the weights take, again and again, through the fastest reading operator. */
function readRate(context: Context, byteLength: number): number {
  return context.scope(() => {
    const x = random(context, [Math.floor(byteLength / (precision === "f32" ? 4 : 2))], precision);
    const accumulator = context.full([1], "f64", 0);
    return (
      byteLength /
      best(context.device, 10, () =>
        context.device.run("sum", { x, accumulator, numElements: x.numElements }),
      )
    );
  });
}

function trainingRate(context: Context): number {
  using decoder = new Decoder(context, config, { dtype: precision, gradientDtype: precision });
  decoder.parameters.initialise(1);
  using optimizer = new AdamW(context, decoder.parameters, {
    betas: [0.9, 0.95],
    eps: 1e-8,
    weightDecay: 0.1,
    clip: 1,
    moments: "f32",
    master: precision === "bf16",
  });
  optimizer.resetMasters(context);
  using step = new TrainingStep(context, { decoder, optimizer, recompute: "none", chunkBytes: 2 ** 24 });
  const tokens = Int32Array.from(
    { length: numSequences * sequenceLength },
    (_, row) => (row * 7919) % config.vocabSize,
  );
  let count = 0;
  const seconds = best(context.device, 4, () => {
    count++;
    step
      .run([{ tokens, targets: tokens, numSequences, sequenceLength }], {
        step: count,
        learningRate: 1e-4,
        seed: 1,
        skipAboveNorm: 0,
      })
      .wait();
  });
  return tokens.length / seconds;
}

function decodeRate(context: Context): { tokensPerSecond: number; hostSeconds: number } {
  using decoder = new Decoder(context, config, { dtype: precision });
  decoder.parameters.initialise(1);
  const cache = { blockSize: 16, numBlocks: 40, maxSequences: 1 };
  using runner = new ModelRunner(context, decoder, { ...cache, maxContext: config.maxPositions });
  const numSteps = 200;
  let nativeMs = 0;
  // What is not inside the runner is the scheduler's.
  const timed: StepRunner = {
    execute(step) {
      const queuedMs = performance.now();
      const pending = runner.execute(step);
      nativeMs += performance.now() - queuedMs;
      return pending;
    },
    dispose: () => {},
    [Symbol.dispose]: () => {},
  };
  const prompts = [Array.from({ length: 64 }, (_, i) => i + 5)];
  const steady = new SteadyBatch(timed, { ...cache, maxStepRows: 512, prompts, maxNewTokens: 400 });
  nativeMs = 0;
  const { device } = context;
  const startMs = performance.now();
  for (let index = 0; index < numSteps; index++) steady.step();
  steady.settle();
  device.synchronize();
  const seconds = (performance.now() - startMs) / 1000 / numSteps;
  return { tokensPerSecond: 1 / seconds, hostSeconds: seconds - nativeMs / 1000 / numSteps };
}

using device = await openDevice({
  kind: "cpu",
  threads: values.threads === undefined ? undefined : Number(values.threads),
});
const context = new Context(device);
const matmul = matmulRate(context);
const training = trainingRate(context);
const weightBytes = countMatmulParameters(config) * (precision === "f32" ? 4 : 2);
const bandwidth = readRate(context, weightBytes);
const decode = decodeRate(context);
const trainingOperations = operationsPerToken(config, sequenceLength).training;

const result = {
  device: device.description,
  precision,
  matmulGflops: matmul / 1e9,
  training: {
    tokensPerSecond: training,
    gflops: (training * trainingOperations) / 1e9,
    shareOfMatmul: (training * trainingOperations) / matmul,
  },
  decode: {
    tokensPerSecond: decode.tokensPerSecond,
    limit: bandwidth / weightBytes,
    shareOfBandwidth: (decode.tokensPerSecond * weightBytes) / bandwidth,
    readGigabytesPerSecond: bandwidth / 1e9,
    hostMicrosecondsAfterNativeCall: decode.hostSeconds * 1e6,
  },
};
if (values.json) process.stdout.write(`${JSON.stringify(result, undefined, 2)}\n`);
else {
  const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;
  process.stdout.write(
    `${result.device}, ${precision}\n` +
      `matmul 2048^3     ${result.matmulGflops.toFixed(1)} GFLOP/s\n` +
      `training          ${training.toFixed(0)} tokens/s = ${result.training.gflops.toFixed(1)} GFLOP/s, ${percent(result.training.shareOfMatmul)} of the matmul rate\n` +
      `decode, batch 1   ${decode.tokensPerSecond.toFixed(0)} tokens/s, ${percent(result.decode.shareOfBandwidth)} of ${result.decode.limit.toFixed(0)} ` +
      `(weights of ${(weightBytes / 1e6).toFixed(1)} MB read at ${result.decode.readGigabytesPerSecond.toFixed(1)} GB/s)\n`,
  );
}
