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

const numIterations = 1_000_000;

/**
 * Seconds per call, by the clock and by the processor: time that other programs took from us is in the first and not in the second,
 * which is the processor's time over the number of threads.
 */
export interface Timing {
  /** Of the fastest call. */
  readonly best: number;
  readonly median: number;
  /** Mean of the fastest quarter of the groups of calls that are long enough to be told by the processor's clock. */
  readonly processor: number;
}

/** Calls again and again for some time, at least three times. */
export function time(milliseconds: number, numThreads: number, call: () => void): Timing {
  const taken: number[] = [];
  const processor: number[] = [];
  for (let total = 0; total < milliseconds || taken.length < 3;) {
    const cpu = process.cpuUsage();
    const groupStart = performance.now();
    let numCalls = 0;
    let now = groupStart;
    do {
      call();
      const end = performance.now();
      taken.push(end - now);
      now = end;
      numCalls++;
    } while (now - groupStart < 20);
    const { user, system } = process.cpuUsage(cpu);
    processor.push((user + system) / 1000 / numCalls / numThreads);
    total += now - groupStart;
  }
  taken.sort((a, b) => a - b);
  processor.sort((a, b) => a - b);
  const quarter = processor.slice(0, Math.ceil(processor.length / 4));
  return {
    best: taken[0] / 1000,
    median: taken[taken.length >> 1] / 1000,
    processor: quarter.reduce((sum, value) => sum + value, 0) / quarter.length / 1000,
  };
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
    const taken = time(400, numThreads, () => void run(numIterations, numThreads));
    return numOperations / Math.min(taken.best, taken.processor) / 1e9;
  };
  const memory = new Float32Array(1 << 26);
  memory.fill(1);
  const read = library.define("bench_read", "float32", ["pointer", "int64", "int32"]);
  const { best: seconds } = time(400, numThreads, () => void read(memory, memory.byteLength, numThreads));
  return {
    f32: rate("bench_f32_peak"),
    bf16: rate("bench_bf16_peak"),
    read: memory.byteLength / seconds / 1e9,
  };
}
