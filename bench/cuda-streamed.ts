/**
 * Products of a few rows with the weights of the 8.54 B model, as decoding makes them: GB/s of weights by our kernel, in the form that it
 * takes by itself and with --forms in every other, and by cuBLASLt, and the share of what reading memory reaches; and the same with weight
 * and rows as codes of E4M3 (but for the head), without and with the quantisation of the rows before each product.
 * `node bench/cuda-streamed.ts [--forms] [--rows 1,16,32,64]`
 *
 * A graph runs over several copies of the weight, more than the second-level cache holds, each product after the one before.
 * Limit: 4,450 GB/s is what a kernel that only reads reaches on an H200 (data sheet: 4,800).
 */
import { parseArgs } from "node:util";
import { invariant } from "../src/base/index.ts";
import { createCudaDevice, type CudaDevice } from "../src/device/cuda/index.ts";
import {
  launchStreamedProduct,
  launchStreamedScaledProduct,
  streamedForm,
  type StreamedForm,
} from "../src/device/cuda/launch/streamedProduct.ts";
import type { OpArguments, TensorArgument } from "../src/device/index.ts";
import { randomMatrix } from "./randomMatrix.ts";

const { values: flags } = parseArgs({
  options: { forms: { type: "boolean", default: false }, rows: { type: "string", default: "1,16,32,64" } },
});
const readLimit = 4450;
const shapes = [
  { label: "qkv", n: 12_288, k: 4096, output: "bf16" },
  { label: "attention out", n: 4096, k: 4096, output: "bf16" },
  { label: "ffn up", n: 16_384, k: 4096, output: "bf16" },
  { label: "ffn down", n: 4096, k: 16_384, output: "bf16" },
  { label: "head", n: 256_000, k: 4096, output: "f32" },
] as const;
const rowCounts = flags.rows.split(",").map(Number);
const mostRows = Math.max(...rowCounts);

type Product = OpArguments<"matmul">;
type ScaledProduct = OpArguments<"matmulScaled">;

/** Microseconds of each part of a graph over all of them, the best of three stretches. */
function microsecondsOf<Part>(device: CudaDevice, parts: readonly Part[], run: (part: Part) => void): number {
  const graph = device.capture(() => parts.forEach(run));
  const numReplays = Math.max(2, Math.ceil(2000 / parts.length));
  graph.replay();
  device.synchronize();
  let best = Infinity;
  for (let round = 0; round < 3; round++) {
    const start = performance.now();
    for (let replay = 0; replay < numReplays; replay++) graph.replay();
    device.synchronize();
    best = Math.min(best, (performance.now() - start) / numReplays);
  }
  graph.dispose();
  return (1000 * best) / parts.length;
}

/** Bytes in so many microseconds: GB/s, its share of the limit, and the time. */
function text(bytes: number, microseconds: number): string {
  const rate = bytes / microseconds / 1e3;
  return `${Math.round(rate)} (${((100 * rate) / readLimit).toFixed(0)} %, ${microseconds.toFixed(1)} us)`;
}

/** A matrix (numRows, width) of bf16 as codes and scales, which the caller disposes. */
function quantised(
  device: CudaDevice,
  x: TensorArgument,
  { numRows, width }: { numRows: number; width: number },
) {
  const codes: TensorArgument = { buffer: device.allocate(numRows * width), byteOffset: 0, dtype: "u8" };
  const scales: TensorArgument = { buffer: device.allocate(numRows * 4), byteOffset: 0, dtype: "f32" };
  device.run("quantiseRows", { x, codes, scales, numRows, width, xRowStride: width });
  return { codes, scales };
}

/** Higher and lower tiles, split and not. */
function formsOf(n: number): StreamedForm[] {
  return [1, 2, 4].flatMap((numSplits) =>
    [64, 96, 128]
      .filter((tileRows) => numSplits === 1 || Math.ceil(n / tileRows) * numSplits <= 132)
      .map((tileRows) => ({ tileRows, numSplits })),
  );
}

process.env["NAUTILUS_STREAMED"] = "off";
using device = createCudaDevice();
console.log(`${device.description}; GB/s of ${readLimit}`);
for (const { label, n, k, output } of shapes) {
  const numWeights = Math.max(2, Math.min(16, Math.ceil(1e9 / (n * k * 2))));
  const weights = Array.from({ length: numWeights }, () => randomMatrix(device, n * k, 0.02));
  // As bf16 weights, also twice as many: more than the second-level cache holds.
  const codes =
    label === "head"
      ? []
      : [...weights, ...weights].map((b) => quantised(device, b, { numRows: n, width: k }));
  const x = randomMatrix(device, mostRows * k, 1);
  const rows = quantised(device, x, { numRows: mostRows, width: k });
  const y: TensorArgument = { buffer: device.allocate(mostRows * n * 4), byteOffset: 0, dtype: output };
  const multiprocessorCount = device.launchContext.multiprocessorCount;
  for (const m of rowCounts) {
    const shape = { m, n, k, lda: k, ldb: k, ldc: n, transposeA: 0, transposeB: 1, alpha: 1, beta: 0 };
    const products = weights.map((b): Product => ({ a: x, b, c: y, ...shape }));
    const bytes = 2 * n * k;
    const streamed = (form: StreamedForm): number =>
      microsecondsOf(device, products, (args) => {
        invariant(launchStreamedProduct(device.launchContext, args, form), "a shape the kernel cannot do");
      });
    const own = streamedForm({ n, k, elementBytes: 2 }, multiprocessorCount);
    const rates = [`ours ${text(bytes, streamed(own))} in ${own.tileRows} x ${own.numSplits}`];
    if (flags.forms)
      for (const form of formsOf(n))
        rates.push(`${form.tileRows} x ${form.numSplits}: ${text(bytes, streamed(form))}`);
    rates.push(
      `cuBLASLt ${text(
        bytes,
        microsecondsOf(device, products, (args) => device.run("matmul", args)),
      )}`,
    );
    const scaled = codes.map(({ codes: b, scales: bScales }): ScaledProduct => {
      return { a: rows.codes, aScales: rows.scales, b, bScales, bias: undefined, c: y, m, n, k, ldc: n };
    });
    const streamedCodes = (form: StreamedForm): number =>
      microsecondsOf(device, scaled, (args) => {
        invariant(
          launchStreamedScaledProduct(device.launchContext, args, form),
          "a shape the kernel cannot do",
        );
      });
    if (scaled.length > 0) {
      const form = streamedForm({ n, k, elementBytes: 1 }, multiprocessorCount);
      rates.push(`fp8: ours ${text(n * k, streamedCodes(form))} in ${form.tileRows} x ${form.numSplits}`);
      if (flags.forms)
        for (const other of formsOf(n))
          rates.push(`${other.tileRows} x ${other.numSplits}: ${text(n * k, streamedCodes(other))}`);
      const quantising = microsecondsOf(device, scaled, (args) => {
        const [{ codes: a, scales }, width] = [rows, k];
        device.run("quantiseRows", { x, codes: a, scales, numRows: m, width, xRowStride: width });
        invariant(launchStreamedScaledProduct(device.launchContext, args), "a shape the kernel cannot do");
      });
      rates.push(`rows quantised before each ${text(n * k, quantising)}`);
      if (m > 16)
        rates.push(
          `cuBLASLt ${text(
            n * k,
            microsecondsOf(device, scaled, (args) => device.run("matmulScaled", args)),
          )}`,
        );
    }
    console.log(`${`${label} ${n} x ${k}, ${m} rows`.padEnd(36)} ${rates.join(", ")}`);
  }
  for (const { codes: each, scales } of [rows, ...codes])
    for (const { buffer } of [each, scales]) buffer.dispose();
  for (const { buffer } of [x, y, ...weights]) buffer.dispose();
}
