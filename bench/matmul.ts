/**
 * Matrix products on the CPU: GFLOP/s and the share of the register peak for large and training shapes, GB/s and the share of the
 * memory's rate for decoding, and OpenBLAS on the same shapes in the same run where it is installed (Debian: libopenblas0).
 * Each figure is the best of many calls by the clock, with how much slower the median call was; the share by processor time leaves out
 * what other programs on the machine took.
 *
 *   node bench/matmul.ts [--threads 1,2] [--milliseconds 600] [--only large|training|decoding]
 */
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { dtypeBytes, encodeValues } from "../src/base/index.ts";
import { createCpuDevice, type CpuDevice } from "../src/device/cpu/index.ts";
import { chooseLevel } from "../src/device/cpu/levels.ts";
import { openLibrary, type NativeFunction } from "../src/device/ffi.ts";
import type { OpArguments, TensorArgument } from "../src/device/index.ts";
import { measurePeaks, time, type CpuPeaks, type Timing } from "./cpuPeaks.ts";

const { values: options } = parseArgs({
  options: {
    threads: { type: "string", default: [...new Set([1, availableParallelism()])].join(",") },
    milliseconds: { type: "string", default: "600" },
    only: { type: "string" },
  },
});

const milliseconds = Number(options.milliseconds);
type MatmulDtype = "f32" | "bf16";
interface Shape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** Which operands are stored transposed: "NN", "NT", "TN", "TT". */
  readonly layout: string;
  readonly beta?: number;
  readonly what: string;
}
const square = (layout: string): Shape => ({ m: 2048, n: 2048, k: 2048, layout, what: "large" });
const groups: Readonly<Record<string, readonly Shape[]>> = {
  large: ["NN", "NT", "TN", "TT"].map(square),
  training: [
    { m: 4096, n: 768, k: 256, layout: "NT", what: "QKV projection" },
    { m: 4096, n: 256, k: 256, layout: "NT", what: "attention output" },
    { m: 4096, n: 1024, k: 256, layout: "NT", what: "FFN up" },
    { m: 4096, n: 256, k: 1024, layout: "NT", what: "FFN down" },
    { m: 4096, n: 256, k: 1024, layout: "NN", what: "FFN up, dx" },
    { m: 1024, n: 256, k: 4096, layout: "TN", beta: 1, what: "FFN up, dw" },
    { m: 256, n: 256, k: 4096, layout: "TN", beta: 1, what: "attention, dw" },
    { m: 4096, n: 8192, k: 256, layout: "NT", what: "LM head" },
    { m: 4096, n: 256, k: 8192, layout: "NN", what: "LM head, dx" },
    { m: 8192, n: 256, k: 4096, layout: "TN", beta: 1, what: "LM head, dw" },
  ],
  decoding: [
    ...[1, 2, 4, 8, 16].map((m) => ({ m, n: 4096, k: 4096, layout: "NT", what: "4096 x 4096" })),
    ...[1, 8].map((m) => ({ m, n: 32_000, k: 4096, layout: "NT", what: "LM head" })),
    ...[1, 8].map((m) => ({ m, n: 1024, k: 256, layout: "NT", what: "small, in cache" })),
    { m: 1, n: 4096, k: 4096, layout: "NN", what: "not transposed" },
  ],
};

/** A matrix of values in [-1, 1), one short stretch of them over and over. */
function matrix(numElements: number): Float32Array<ArrayBuffer> {
  const stretch = Float32Array.from({ length: 4096 }, () => Math.random() * 2 - 1);
  const values = new Float32Array(numElements);
  for (let index = 0; index < numElements; index += stretch.length)
    values.set(stretch.subarray(0, Math.min(stretch.length, numElements - index)), index);
  return values;
}

function strides({ m, n, k, layout }: Shape): { lda: number; ldb: number; ldc: number } {
  return { lda: layout[0] === "T" ? m : k, ldb: layout[1] === "T" ? k : n, ldc: n };
}

function timeOurs(device: CpuDevice, dtype: MatmulDtype, shape: Shape): Timing {
  const { m, n, k, layout } = shape;
  const tensors = [m * k, k * n, m * n].map((numElements): TensorArgument => {
    const buffer = device.allocate(numElements * dtypeBytes(dtype));
    device.upload(buffer, 0, encodeValues(dtype, matrix(numElements)));
    return { buffer, byteOffset: 0, dtype };
  });
  const args: OpArguments<"matmul"> = {
    a: tensors[0],
    b: tensors[1],
    c: tensors[2],
    m,
    n,
    k,
    ...strides(shape),
    alpha: 1,
    beta: shape.beta ?? 0,
    transposeA: layout[0] === "T" ? 1 : 0,
    transposeB: layout[1] === "T" ? 1 : 0,
  };
  const timing = time(milliseconds, device.numThreads, () => {
    device.run("matmul", args);
  });
  for (const { buffer } of tensors) buffer.dispose();
  device.trimMemory();
  return timing;
}

interface OpenBlas {
  readonly description: string;
  readonly sgemm: NativeFunction<number>;
  readonly setThreads: NativeFunction<number>;
}

function findOpenBlas(): OpenBlas | undefined {
  for (const name of ["libopenblas.so.0", "libopenblas.so", "libopenblas.dylib"]) {
    try {
      const library = openLibrary(name);
      const parameters = ["int32", "int32", "int32", "int32", "int32", "int32", "float32"] as const;
      const operands = ["pointer", "int32", "pointer", "int32", "float32", "pointer", "int32"] as const;
      return {
        description: library.defineText("openblas_get_config", [])() ?? "OpenBLAS",
        sgemm: library.define("cblas_sgemm", "void", [...parameters, ...operands]),
        setThreads: library.define("openblas_set_num_threads", "void", ["int32"]),
      };
    } catch {
      // Not under this name.
    }
  }
  return undefined;
}

function timeOpenBlas(blas: OpenBlas, shape: Shape, numThreads: number): Timing {
  const { m, n, k, layout } = shape;
  const [a, b, c] = [matrix(m * k), matrix(k * n), matrix(m * n)];
  const { lda, ldb, ldc } = strides(shape);
  const rowMajor = 101;
  const code = (letter: string): number => (letter === "T" ? 112 : 111);
  blas.setThreads(numThreads);
  const [transposeA, transposeB] = [code(layout[0]), code(layout[1])];
  return time(
    milliseconds,
    numThreads,
    () =>
      void blas.sgemm(rowMajor, transposeA, transposeB, m, n, k, 1, a, lda, b, ldb, shape.beta ?? 0, c, ldc),
  );
}

interface Contender {
  readonly who: string;
  readonly bytesPerElement: number;
  /** In the unit of the group, 1e9 per second. */
  readonly limit: number;
  readonly timing: Timing;
}

/** The figure and its share of the limit, by the clock and by the processor's time. */
function report(group: string, { m, n, k, layout, what }: Shape, contender: Contender): void {
  const { who, bytesPerElement, limit, timing } = contender;
  const isDecoding = group === "decoding";
  const work = (isDecoding ? n * k * bytesPerElement : 2 * m * n * k) / 1e9;
  const share = (seconds: number): string => `${((100 * work) / seconds / limit).toFixed(0).padStart(4)} %`;
  const columns = [
    `${m} x ${n} x ${k} ${layout}`.padEnd(21),
    what.padEnd(16),
    who.padEnd(8),
    `${(timing.best * 1e6).toFixed(1).padStart(9)} us`,
    `${(work / timing.best).toFixed(1).padStart(6)} ${isDecoding ? "GB/s" : "GFLOP/s"}`,
    share(timing.best),
    `by processor time ${share(timing.processor)}`,
    `median +${(100 * (timing.median / timing.best - 1)).toFixed(0)} %`,
  ];
  console.log(columns.join("  "));
}

function benchGroup(device: CpuDevice, group: string, peaks: CpuPeaks): void {
  for (const shape of groups[group]) {
    for (const who of ["f32", "bf16"] as const) {
      // Without an instruction for bf16 the products are f32 ones.
      const peak = who === "bf16" && peaks.bf16 > 0 ? peaks.bf16 : peaks.f32;
      const limit = group === "decoding" ? peaks.read : peak;
      const timing = timeOurs(device, who, shape);
      report(group, shape, { who, bytesPerElement: dtypeBytes(who), limit, timing });
    }
    if (blas === undefined) continue;
    const timing = timeOpenBlas(blas, shape, device.numThreads);
    const limit = group === "decoding" ? peaks.read : peaks.f32;
    report(group, shape, { who: "OpenBLAS", bytesPerElement: 4, limit, timing });
  }
}

const blas = findOpenBlas();
console.log(blas === undefined ? "OpenBLAS not found (apt install libopenblas0)" : blas.description);
for (const numThreads of options.threads.split(",").map(Number)) {
  using device = await createCpuDevice({ threads: numThreads });
  const peaks = await measurePeaks(chooseLevel(), numThreads);
  const rates = `${peaks.f32.toFixed(0)} GFLOP/s f32, ${peaks.bf16.toFixed(0)} bf16`;
  console.log(`\n${device.description}\nlimits: ${rates}; memory read ${peaks.read.toFixed(1)} GB/s`);
  for (const group of Object.keys(groups)) {
    if (options.only === undefined || options.only === group) benchGroup(device, group, peaks);
  }
}
