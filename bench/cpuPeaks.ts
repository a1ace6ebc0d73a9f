/**
 * The limits of this machine that the CPU benchmarks are held against, measured when they run: multiply-adds from registers,
 * and reading memory far larger than the caches. See native/peaks.cpp.
 */
import { fileURLToPath } from "node:url";
import { cacheFolder } from "../src/base/index.ts";
import { buildLibrary, findCompiler } from "../src/device/build/index.ts";
import { compileFlags, type CpuLevel } from "../src/device/cpu/levels.ts";
import { openLibrary } from "../src/device/ffi.ts";

export interface CpuPeaks {
  /** GFLOP/s; bf16 is 0 where there is no instruction for it. */
  readonly f32: number;
  readonly bf16: number;
  /** GB/s. */
  readonly read: number;
}

const numRounds = 100;
const numIterations = 1_000_000;

/** Seconds of the fastest of some calls: other programs on the machine only ever add. */
export function fastest(numCalls: number, call: () => void): number {
  let best = Number.POSITIVE_INFINITY;
  for (let index = 0; index < numCalls; index++) {
    const start = performance.now();
    call();
    best = Math.min(best, performance.now() - start);
  }
  return best / 1000;
}

/** What `numThreads` cores reach together, at the same time. */
export async function measurePeaks(level: CpuLevel, numThreads: number): Promise<CpuPeaks> {
  const path = await buildLibrary({
    compiler: await findCompiler(),
    name: `bench-${level}`,
    sourceFolder: fileURLToPath(new URL("./native", import.meta.url)),
    generatedHeaders: {},
    flags: compileFlags(level),
    cacheFolder: cacheFolder("kernels"),
  });
  const library = openLibrary(path);
  const rate = (name: string): number => {
    const run = library.define(name, "int64", ["int64", "int32"]);
    const numOperations = run(numIterations, numThreads);
    return numOperations / fastest(numRounds, () => void run(numIterations, numThreads)) / 1e9;
  };
  const memory = new Float32Array(1 << 26);
  memory.fill(1);
  const read = library.define("bench_read", "float32", ["pointer", "int64", "int32"]);
  const seconds = fastest(6, () => void read(memory, memory.byteLength, numThreads));
  return {
    f32: rate("bench_f32_peak"),
    bf16: rate("bench_bf16_peak"),
    read: memory.byteLength / seconds / 1e9,
  };
}
