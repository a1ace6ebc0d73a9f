/**
 * What the CUDA device reaches before any operator of our own: products of the 8.54 B model through cuBLASLt, copies, and what a
 * call costs the host. Each line gives the figure, the limit and the share. `node bench/cuda.ts`
 *
 * Limits: 989 TFLOP/s dense bf16 and 4.8 TB/s are the data sheet's of an H200 SXM; 55 GB/s is PCIe 5.0 x16 in practice.
 */
import { createCudaDevice, type CudaDevice } from "../src/device/cuda/index.ts";
import type { DeviceBuffer } from "../src/device/index.ts";
import { randomMatrix } from "./randomMatrix.ts";

const peakTflops = 989;
const peakBandwidth = 4800;
const peakLink = 55;

interface Product {
  readonly label: string;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly transposeA?: number;
  readonly transposeB?: number;
  readonly beta?: number;
}

const device: CudaDevice = createCudaDevice();
console.log(device.description);

/** Milliseconds per call: the mean of `numRuns` queued in a row after a first one. */
function time(numRuns: number, queue: () => void): number {
  queue();
  device.synchronize();
  const start = performance.now();
  for (let run = 0; run < numRuns; run++) queue();
  device.synchronize();
  return (performance.now() - start) / numRuns;
}

/** Microseconds the host needs to queue a call that the GPU does at once. */
function hostMicroseconds(queue: () => void): number {
  const numRounds = 12;
  const numRuns = 400;
  let totalMs = 0;
  for (let round = -2; round < numRounds; round++) {
    const start = performance.now();
    for (let run = 0; run < numRuns; run++) queue();
    // The first rounds are for the just-in-time compiler.
    if (round >= 0) totalMs += performance.now() - start;
    device.synchronize();
  }
  return (1000 * totalMs) / (numRounds * numRuns);
}

function line(label: string, figure: number, unit: string, limit: number): void {
  const share = `${((100 * figure) / limit).toFixed(1)} %`;
  console.log(`${label.padEnd(44)} ${figure.toFixed(1).padStart(9)} ${unit.padEnd(8)} of ${limit}: ${share}`);
}

function withProduct<Result>(product: Product, body: (queue: () => void) => Result): Result {
  const { m, n, k, transposeA = 0, transposeB = 0, beta = 0 } = product;
  const tensors = {
    a: randomMatrix(device, m * k, 1),
    b: randomMatrix(device, k * n, 0.02),
    c: randomMatrix(device, m * n, 0.02),
  };
  const strides = { lda: transposeA === 1 ? m : k, ldb: transposeB === 1 ? k : n, ldc: n };
  const args = { ...tensors, ...strides, m, n, k, transposeA, transposeB, alpha: 1, beta };
  try {
    return body(() => device.run("matmul", args));
  } finally {
    for (const { buffer } of Object.values(tensors)) buffer.dispose();
  }
}

function benchProducts(): void {
  const rows = 4096;
  // Weights are stored (out, in): forward y = x w^T, dx = dy w, dw += dy^T x.
  const weights = [
    { label: "qkv", out: 12_288, into: 4096, numLayers: 32 },
    { label: "attention out", out: 4096, into: 4096, numLayers: 32 },
    { label: "ffn up", out: 16_384, into: 4096, numLayers: 32 },
    { label: "ffn down", out: 4096, into: 16_384, numLayers: 32 },
    { label: "head, a quarter of the rows", out: 256_000, into: 4096, numLayers: 4, rows: rows / 4 },
  ];
  withProduct({ label: "", m: 8192, n: 8192, k: 8192 }, (queue) => {
    line("8192^3", (2 * 8192 ** 3) / time(30, queue) / 1e9, "TFLOP/s", peakTflops);
  });
  let stepMs = 0;
  for (const { label, out, into, numLayers, rows: m = rows } of weights) {
    const kinds: Product[] = [
      { label: `${label}: forward`, m, n: out, k: into, transposeB: 1 },
      { label: `${label}: dx`, m, n: into, k: out },
      { label: `${label}: dw`, m: out, n: into, k: m, transposeA: 1, beta: 1 },
    ];
    for (const product of kinds)
      withProduct(product, (queue) => {
        const ms = time(8, queue);
        stepMs += ms * numLayers;
        line(product.label, (2 * m * out * into) / ms / 1e9, "TFLOP/s", peakTflops);
      });
  }
  console.log(
    `products of one step of ${rows} tokens: ${stepMs.toFixed(1)} ms, ${Math.round((1000 * rows) / stepMs)} tok/s`,
  );
}

function benchDecode(): void {
  for (const m of [1, 16, 64]) {
    const numWeights = 8;
    const n = 16_384;
    const k = 4096;
    const x = randomMatrix(device, m * k, 1);
    const y = randomMatrix(device, m * n, 1);
    const weights = Array.from({ length: numWeights }, () => randomMatrix(device, n * k, 0.02));
    const shape = { m, n, k, lda: k, ldb: k, ldc: n, transposeA: 0, transposeB: 1, alpha: 1, beta: 0 };
    const graph = device.capture(() => {
      for (const b of weights) device.run("matmul", { a: x, b, c: y, ...shape });
    });
    const ms = time(20, () => graph.replay()) / numWeights;
    line(`16384 x 4096 weights, ${m} rows, from a graph`, (2 * n * k) / ms / 1e6, "GB/s", peakBandwidth);
    graph.dispose();
    for (const { buffer } of [x, y, ...weights]) buffer.dispose();
  }
}

function benchCopies(): void {
  const byteLength = 1 << 30;
  const bytes = new Uint8Array(byteLength).fill(1);
  const a: DeviceBuffer = device.allocate(byteLength);
  const b: DeviceBuffer = device.allocate(byteLength);
  const rate = (ms: number): number => byteLength / ms / 1e6;
  line("upload of 1 GiB", rate(time(1, () => device.upload(a, 0, bytes))), "GB/s", peakLink);
  line("download of 1 GiB", rate(time(1, () => device.download(a, 0, bytes))), "GB/s", peakLink);
  line(
    "copy, read and written",
    2 * rate(time(20, () => device.copy(a, 0, b, 0, byteLength))),
    "GB/s",
    peakBandwidth,
  );
  a.dispose();
  b.dispose();
}

function benchHost(): void {
  const report = (label: string, microseconds: number): void =>
    console.log(`${label.padEnd(44)} ${microseconds.toFixed(2).padStart(9)} us of the host per call`);
  withProduct({ label: "", m: 16, n: 16, k: 16 }, (queue) => report("matmul 16^3", hostMicroseconds(queue)));
  withProduct({ label: "", m: 16, n: 16, k: 0 }, (queue) =>
    report("a kernel of ours", hostMicroseconds(queue)),
  );
  withProduct({ label: "", m: 16, n: 16, k: 16 }, (queue) => {
    const graph = device.capture(() => {
      for (let index = 0; index < 200; index++) queue();
    });
    report(
      "replay of a graph of 200 kernels",
      hostMicroseconds(() => graph.replay()),
    );
    console.log(
      `${"a kernel in a graph".padEnd(44)} ${((1000 * time(50, () => graph.replay())) / 200).toFixed(2).padStart(9)} us of the GPU`,
    );
    graph.dispose();
  });
  report(
    "allocate and dispose 32 MiB",
    hostMicroseconds(() => device.allocate(1 << 25).dispose()),
  );
  const small = device.allocate(4096);
  const bytes = new Uint8Array(4096);
  report(
    "upload of 4 KiB",
    hostMicroseconds(() => device.upload(small, 0, bytes)),
  );
  report(
    "readback of 4 KiB, waited for",
    hostMicroseconds(() => device.readback(small, 0, 4096).wait()),
  );
  small.dispose();
}

benchHost();
benchCopies();
benchProducts();
benchDecode();
device.dispose();
