/**
 * Products of a few rows with the weights of the 8.54 B model, as decoding makes them: GB/s of weights by our kernel and by cuBLASLt,
 * and the share of what reading memory reaches; also for products that the device leaves to the library. `node bench/cuda-matvec.ts`
 *
 * A graph runs over several copies of the weight, more than the second-level cache holds, each product after the one before.
 * Limit: 4,450 GB/s is what a kernel that only reads reaches on an H200 (data sheet: 4,800).
 */
import { encodeValues, invariant } from "../src/base/index.ts";
import { createCudaDevice, type CudaDevice } from "../src/device/cuda/index.ts";
import { launchMatvec } from "../src/device/cuda/launch/matvec.ts";
import type { OpArguments, TensorArgument } from "../src/device/index.ts";

const readLimit = 4450;
const shapes = [
  { label: "qkv", n: 12_288, k: 4096, output: "bf16" },
  { label: "attention out", n: 4096, k: 4096, output: "bf16" },
  { label: "ffn up", n: 16_384, k: 4096, output: "bf16" },
  { label: "ffn down", n: 4096, k: 16_384, output: "bf16" },
  { label: "head", n: 256_000, k: 4096, output: "f32" },
] as const;
const rowCounts = [1, 2, 4, 8, 16, 32, 64];
/** Beyond these there is no kernel of ours. */
const mostOwnRows = 16;
const mostRows = Math.max(...rowCounts);

/** A bf16 matrix of random values: one stretch of them over and over. */
function randomMatrix(device: CudaDevice, numElements: number, scale: number): TensorArgument {
  const stretch = Math.min(numElements, 1 << 20);
  const values = new Float32Array(stretch);
  for (let index = 0; index < stretch; index++) values[index] = (Math.random() * 2 - 1) * scale;
  const bytes = encodeValues("bf16", values);
  const buffer = device.allocate(numElements * 2);
  device.upload(buffer, 0, bytes);
  for (let filled = bytes.byteLength; filled < buffer.byteLength; filled *= 2)
    device.copy(buffer, 0, buffer, filled, Math.min(filled, buffer.byteLength - filled));
  return { buffer, byteOffset: 0, dtype: "bf16" };
}

type Product = OpArguments<"matmul">;

/** GB/s by shape and number of rows, undefined above `rowLimit`. */
function measure(
  device: CudaDevice,
  rowLimit: number,
  run: (args: Product) => void,
): (number | undefined)[][] {
  const rates = shapes.map(({ n, k, output }) => {
    const weightBytes = n * k * 2;
    const numWeights = Math.max(2, Math.min(16, Math.ceil(1e9 / weightBytes)));
    const weights = Array.from({ length: numWeights }, () => randomMatrix(device, n * k, 0.02));
    const x = randomMatrix(device, mostRows * k, 1);
    const y: TensorArgument = { buffer: device.allocate(mostRows * n * 4), byteOffset: 0, dtype: output };
    const byRows = rowCounts.map((m) => {
      if (m > rowLimit) return undefined;
      const shape = { m, n, k, lda: k, ldb: k, ldc: n, transposeA: 0, transposeB: 1, alpha: 1, beta: 0 };
      const graph = device.capture(() => {
        for (const b of weights) run({ a: x, b, c: y, ...shape });
      });
      const numReplays = Math.max(2, Math.ceil(2e10 / (weightBytes * numWeights)));
      graph.replay();
      device.synchronize();
      const start = performance.now();
      for (let replay = 0; replay < numReplays; replay++) graph.replay();
      device.synchronize();
      const ms = (performance.now() - start) / (numReplays * numWeights);
      graph.dispose();
      return weightBytes / ms / 1e6;
    });
    for (const { buffer } of [x, y, ...weights]) buffer.dispose();
    return byRows;
  });
  return rates;
}

process.env["NAUTILUS_MATVEC"] = "off";
const device = createCudaDevice();
console.log(device.description);
const ours = measure(device, mostOwnRows, (args) => {
  invariant(launchMatvec(device.launchContext, args), "a shape that the kernel cannot do");
});
const library = measure(device, mostRows, (args) => device.run("matmul", args));
device.dispose();

function share(rate: number | undefined): string {
  return rate === undefined ? "none" : `${Math.round(rate)} (${((100 * rate) / readLimit).toFixed(0)} %)`;
}

for (const [index, { label, n, k }] of shapes.entries())
  for (const [column, m] of rowCounts.entries())
    console.log(
      `${`${label} ${n} x ${k}, ${m} rows`.padEnd(36)} ${share(ours[index][column])} GB/s, ` +
        `cuBLASLt ${share(library[index][column])}, of ${readLimit}`,
    );
