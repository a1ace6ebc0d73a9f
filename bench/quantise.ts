/**
 * Quantised weights: the speed of one row against a weight (the share of reading memory that the codes come at), the error of each format,
 * and what it does to the loss of a small model that it trains first, or of a model that is there over texts (.jsonl.gz).
 *
 *   node bench/quantise.ts [--rows 4096] [--columns 4096] [--copies 8] [--steps 300]
 *   node bench/quantise.ts --model demo/nautilus-demo-20m --texts corpus/heldout/en.jsonl.gz [--tokens 65536]
 */
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import { gunzipSync } from "node:zlib";
import { z } from "zod";
import { openModel } from "../src/app/runs/openModel.ts";
import { RandomStream } from "../src/base/index.ts";
import { openDevice, quantisedFormats } from "../src/device/index.ts";
import type { Device } from "../src/device/index.ts";
import { checkDecoderConfig, Decoder, nemotronPreset } from "../src/models/index.ts";
import { Context, matmulInto, quantisedWeight, Tape } from "../src/tensor/index.ts";
import type { Tensor } from "../src/tensor/index.ts";
import type { Tokenizer } from "../src/text/index.ts";
import { AdamW } from "../src/train/index.ts";

const { values } = parseArgs({
  options: {
    rows: { type: "string", default: "4096" },
    columns: { type: "string", default: "4096" },
    copies: { type: "string", default: "8" },
    steps: { type: "string", default: "300" },
    model: { type: "string" },
    texts: { type: "string", multiple: true, default: [] },
    tokens: { type: "string", default: "65536" },
  },
});
const [numRows, width, numCopies] = [values.rows, values.columns, values.copies].map(Number);

/** Seconds of the quickest of some rounds over `works`, which lie in different memory. */
function secondsOf(device: Device, works: readonly (() => void)[]): number {
  let best = Infinity;
  for (let round = 0; round < 7; round++) {
    const start = performance.now();
    for (const work of works) work();
    device.synchronize();
    best = Math.min(best, (performance.now() - start) / 1000);
  }
  return best / works.length;
}

/** GB/s of reading f32: a sum over memory that no cache holds. */
function readingSpeed(context: Context): number {
  return context.scope(() => {
    const x = context.full([2 ** 26], "f32", 1);
    const accumulator = context.full([1], "f64", 0);
    const work = (): void => context.device.run("sum", { x, accumulator, numElements: x.numElements });
    return x.byteLength / secondsOf(context.device, [work]) / 1e9;
  });
}

function speeds(context: Context): void {
  const { device } = context;
  const limit = readingSpeed(context);
  console.log(
    `${device.description}; reading memory ${limit.toFixed(1)} GB/s; weight (${numRows}, ${width}), one row of x in bf16`,
  );
  const report = (name: string, bytes: number, seconds: number, plain: number): void => {
    const speed = bytes / seconds / 1e9;
    const share = ((100 * speed) / limit).toFixed(0);
    console.log(
      `${name.padEnd(6)} ${(1e6 * seconds).toFixed(0).padStart(6)} us  ${speed.toFixed(1).padStart(6)} GB/s of codes and scales  ${share.padStart(4)} % of reading  ${(plain / seconds).toFixed(2)} x bf16`,
    );
  };
  context.scope(() => {
    const normal = (): Tensor => {
      const y = context.empty([numRows, width], "bf16");
      device.run("randomNormal", { y, numElements: y.numElements, seed: 1, counter: 0, mean: 0, std: 0.02 });
      return y;
    };
    const dense = Array.from({ length: numCopies }, normal);
    const x = context.full([1, width], "bf16", 0.5);
    const y = context.empty([1, numRows], "bf16");
    const plain = secondsOf(
      device,
      dense.map(
        (b) => () => matmulInto(context, { a: x, b, c: y }, { m: 1, n: numRows, k: width, transposeB: true }),
      ),
    );
    report("bf16", 2 * numRows * width, plain, plain);
    for (const format of quantisedFormats) {
      const weights = dense.map((weight) => {
        const quantised = quantisedWeight(device, weight.shape, { format });
        quantised.assign(context, weight);
        return quantised;
      });
      const works = weights.map((weight) => () => weight.multiply(context, { x, y, bias: undefined }));
      report(format, weights[0].byteLength, secondsOf(device, works), plain);
      for (const weight of weights) weight.dispose();
    }
  });
}

const config = checkDecoderConfig({ ...nemotronPreset("nemotron-tiny"), vocabSize: 256, maxPositions: 128 });
const sequenceLength = 64;

/** Text of a language with rules: each token follows from two before it, one time in eight by chance. */
function batch(seed: number) {
  const random = new RandomStream(seed);
  const tokens = new Int32Array(8 * sequenceLength + 1);
  tokens[0] = random.nextInt(config.vocabSize);
  for (let i = 1; i < tokens.length; i++) {
    const followed = (5 * tokens[i - 1] + 3 * (tokens[i - 2] ?? 0) + 7) % config.vocabSize;
    tokens[i] = random.nextInt(8) === 0 ? random.nextInt(config.vocabSize) : followed;
  }
  return { tokens: tokens.subarray(0, -1), targets: tokens.subarray(1) };
}

function lossOf(context: Context, decoder: Decoder, seed: number, tape?: Tape): number {
  return context.scope(() => {
    const { tokens, targets } = batch(seed);
    const numTokens = tokens.length;
    const positions = Int32Array.from({ length: numTokens }, (_, i) => i % sequenceLength);
    const tensor = (numbers: Int32Array): Tensor => context.tensor(numbers, [numTokens], "i32");
    const input = { tokens: tensor(tokens), positions: tensor(positions), numSequences: 8, sequenceLength };
    const losses = context.withTape(tape, () =>
      decoder.loss(context, input, {
        targets: tensor(targets),
        gradientScale: 1 / numTokens,
        chunkBytes: 2 ** 22,
      }),
    );
    tape?.backward(context);
    return losses.toArray().reduce((total, loss) => total + loss, 0) / numTokens;
  });
}

function train(context: Context): Decoder {
  const decoder = new Decoder(context, config, { dtype: "f32", gradientDtype: "f32" });
  decoder.parameters.initialise(3);
  using optimizer = new AdamW(context, decoder.parameters, {
    betas: [0.9, 0.95],
    eps: 1e-8,
    weightDecay: 0.1,
    clip: 1,
    moments: "f32",
    master: false,
  });
  for (let step = 1; step <= Number(values.steps); step++) {
    decoder.parameters.clearGradients();
    using tape = new Tape();
    lossOf(context, decoder, step, tape);
    optimizer.step(context, { step, learningRate: 2e-3, seed: step, skipAboveNorm: 0 });
  }
  return decoder;
}

/** Mean loss over texts that training has not seen. */
function heldOutLoss(context: Context, decoder: Decoder): number {
  const losses = Array.from({ length: 8 }, (_, i) => lossOf(context, decoder, 1_000_000 + i));
  return losses.reduce((total, loss) => total + loss, 0) / losses.length;
}

function quality(context: Context): void {
  using trained = train(context);
  const before = heldOutLoss(context, trained);
  console.log(`\nheld-out loss in f32 after ${values.steps} steps: ${before.toFixed(4)} nats`);
  for (const quantise of quantisedFormats) {
    using decoder = new Decoder(context, config, { dtype: "f32", quantise });
    for (const parameter of decoder.parameters)
      parameter.setBytes(trained.parameters.get(parameter.name).toBytes());
    let worst = { name: "", share: 0 };
    let [errors, squares] = [0, 0];
    for (const [name, weight] of decoder.quantised) {
      context.scope(() => {
        const dense = trained.parameters.get(name);
        weight.assign(context, dense);
        const expected = dense.toArray();
        const given = weight.dequantise(context, "f32").toArray();
        const error = expected.reduce((total, value, i) => total + (given[i] - value) ** 2, 0);
        const square = expected.reduce((total, value) => total + value ** 2, 0);
        if (error / square > worst.share) worst = { name, share: error / square };
        errors += error;
        squares += square;
      });
    }
    const difference = heldOutLoss(context, decoder) - before;
    console.log(
      `${quantise.padEnd(5)} loss ${difference >= 0 ? "+" : ""}${difference.toFixed(5)}  mean square error ${(errors / squares).toExponential(2)} of the weights' own, at most ${worst.share.toExponential(2)} (${worst.name})`,
    );
  }
}

/** Documents one after another, each with the token that ends a text. */
function textTokens(tokenizer: Tokenizer, path: string): Int32Array {
  const lines = gunzipSync(readFileSync(path)).toString("utf8").trim().split("\n");
  const tokens: number[] = [];
  for (const line of lines) {
    if (tokens.length > Number(values.tokens)) break;
    const document = z.object({ text: z.string() }).parse(JSON.parse(line));
    tokens.push(...tokenizer.encode(document.text), tokenizer.eosId);
  }
  return Int32Array.from(tokens.slice(0, Number(values.tokens) + 1));
}

/** Losses of the tokens that follow, in pieces of half the model's context. */
function textLosses(context: Context, decoder: Decoder, tokens: Int32Array): number[] {
  const length = decoder.config.maxPositions / 2;
  const losses: number[] = [];
  for (let start = 0; start + length < tokens.length; start += length)
    context.scope(() => {
      const tensor = (numbers: Int32Array): Tensor => context.tensor(numbers, [length], "i32");
      const input = {
        tokens: tensor(tokens.subarray(start, start + length)),
        positions: tensor(Int32Array.from({ length }, (_, position) => position)),
        numSequences: 1,
        sequenceLength: length,
      };
      const targets = tensor(tokens.subarray(start + 1, start + 1 + length));
      const options = { targets, gradientScale: 1 / length, chunkBytes: 2 ** 24 };
      losses.push(...decoder.loss(context, input, options).toArray());
    });
  return losses;
}

const meanOf = (numbers: readonly number[]): number =>
  numbers.reduce((total, number) => total + number, 0) / numbers.length;

/** Each form's mean loss beside that of f32 arithmetic over the same weights, with the standard error of the difference. */
async function modelQuality(context: Context, model: string, texts: readonly string[]): Promise<void> {
  const forms = [
    { precision: "f32" },
    { precision: "bf16" },
    ...quantisedFormats.map((quantise) => ({ precision: "bf16", quantise }) as const),
  ] as const;
  const plain = new Map<string, number[]>();
  for (const form of forms) {
    using opened = await openModel(context, model, form);
    for (const path of texts) {
      const losses = textLosses(context, opened.decoder, textTokens(opened.tokenizer, path));
      const before = plain.get(path) ?? losses;
      plain.set(path, before);
      const differences = losses.map((loss, i) => loss - before[i]);
      const difference = meanOf(differences);
      const spread = Math.sqrt(meanOf(differences.map((each) => (each - difference) ** 2)) / losses.length);
      const name = "quantise" in form ? form.quantise : form.precision;
      console.log(
        `${name.padEnd(5)} ${basename(path).padEnd(22)} ${losses.length} tokens  loss ${meanOf(losses).toFixed(4)}  ${difference >= 0 ? "+" : ""}${difference.toFixed(5)} (standard error ${spread.toFixed(5)})`,
      );
    }
  }
}

using device = await openDevice({ kind: "cpu" });
const context = new Context(device);
if (values.model === undefined) {
  speeds(context);
  quality(context);
} else await modelQuality(context, values.model, values.texts);
