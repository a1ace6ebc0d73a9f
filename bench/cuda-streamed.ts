/**
 * Products of a few rows with the weights of the 8.54 B model, as decoding makes them: GB/s of weights by our kernel, in the form that it
 * takes by itself and with --forms in every other, and by cuBLASLt, and the share of what reading memory reaches.
 * `node bench/cuda-streamed.ts [--forms]`
 *
 * A graph runs over several copies of the weight, more than the second-level cache holds, each product after the one before.
 * Limit: 4,450 GB/s is what a kernel that only reads reaches on an H200 (data sheet: 4,800).
 */
import { parseArgs } from "node:util";
import { invariant } from "../src/base/index.ts";
import { createCudaDevice, type CudaDevice } from "../src/device/cuda/index.ts";
import {
  launchStreamedProduct,
  streamedForm,
  type StreamedForm,
} from "../src/device/cuda/launch/streamedProduct.ts";
import type { OpArguments, TensorArgument } from "../src/device/index.ts";
import { randomMatrix } from "./randomMatrix.ts";

const { values: flags } = parseArgs({ options: { forms: { type: "boolean", default: false } } });
const readLimit = 4450;
const shapes = [
  { label: "qkv", n: 12_288, k: 4096, output: "bf16" },
  { label: "attention out", n: 4096, k: 4096, output: "bf16" },
  { label: "ffn up", n: 16_384, k: 4096, output: "bf16" },
  { label: "ffn down", n: 4096, k: 16_384, output: "bf16" },
  { label: "head", n: 256_000, k: 4096, output: "f32" },
] as const;
const rowCounts = [1, 16, 32, 64];
const mostRows = Math.max(...rowCounts);

type Product = OpArguments<"matmul">;

/** GB/s of weights of a graph over all of them, the best of three stretches. */
function rateOf(device: CudaDevice, products: readonly Product[], run: (args: Product) => void): number {
  const [{ n, k }] = products;
  const graph = device.capture(() => products.forEach(run));
  const bytes = 2 * n * k * products.length;
  const numReplays = Math.max(2, Math.ceil(6e9 / bytes));
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
  return bytes / best / 1e6;
}

/** Higher and lower tiles, split and not. */
function formsOf(n: number): StreamedForm[] {
  return [1, 2, 4].flatMap((numSplits) =>
    [64, 96, 128]
      .filter((tileRows) => numSplits === 1 || Math.ceil(n / tileRows) * numSplits <= 132)
      .map((tileRows) => ({ tileRows, numSplits })),
  );
}

function text(rate: number): string {
  return `${Math.round(rate)} (${((100 * rate) / readLimit).toFixed(0)} %)`;
}

process.env["NAUTILUS_STREAMED"] = "off";
using device = createCudaDevice();
console.log(`${device.description}; GB/s of ${readLimit}`);
for (const { label, n, k, output } of shapes) {
  const numWeights = Math.max(2, Math.min(16, Math.ceil(1e9 / (n * k * 2))));
  const weights = Array.from({ length: numWeights }, () => randomMatrix(device, n * k, 0.02));
  const x = randomMatrix(device, mostRows * k, 1);
  const y: TensorArgument = { buffer: device.allocate(mostRows * n * 4), byteOffset: 0, dtype: output };
  for (const m of rowCounts) {
    const shape = { m, n, k, lda: k, ldb: k, ldc: n, transposeA: 0, transposeB: 1, alpha: 1, beta: 0 };
    const products = weights.map((b) => ({ a: x, b, c: y, ...shape }));
    const streamed = (form: StreamedForm): number =>
      rateOf(device, products, (args) => {
        invariant(launchStreamedProduct(device.launchContext, args, form), "a shape the kernel cannot do");
      });
    const own = streamedForm({ n, k }, device.launchContext.multiprocessorCount);
    const rates = [`ours ${text(streamed(own))} in ${own.tileRows} x ${own.numSplits}`];
    if (flags.forms)
      for (const form of formsOf(n))
        rates.push(`${form.tileRows} x ${form.numSplits}: ${Math.round(streamed(form))}`);
    rates.push(`cuBLASLt ${text(rateOf(device, products, (args) => device.run("matmul", args)))}`);
    console.log(`${`${label} ${n} x ${k}, ${m} rows`.padEnd(36)} ${rates.join(", ")}`);
  }
  for (const { buffer } of [x, y, ...weights]) buffer.dispose();
}
