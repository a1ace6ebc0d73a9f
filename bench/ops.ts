/**
 * Every operator at working size: time, bytes per second, arithmetic per second, and the share of the limit, which is measured on the same
 * device in the same run: copying memory and a large matrix product. Operands that fit into a cache can show above 100 %. Times are the
 * fastest of several, since other work on the machine only ever adds to them.
 *
 *   node bench/ops.ts --device cuda [--op attentionForward] [--dtype bf16] [--sizes cpu|cuda]
 */
import { parseArgs } from "node:util";
import { ConfigError, dtypeBytes, formatBytes } from "../src/base/index.ts";
import { openDevice, opNames, type Device, type DeviceBuffer, type OpName } from "../src/device/index.ts";
import { dtypesOf } from "../test/conformance/case.ts";
import type { TensorDtype } from "../test/conformance/cases/common.ts";
import { matmulCase } from "../test/conformance/cases/matmul.ts";
import { Placement } from "../test/conformance/memory.ts";
import { benchCases, sizes, type BenchCase } from "./op-cases.ts";

/** Time for the samples of one figure, and how many samples there are at least. */
const samplingMs = 150;
const minNumSamples = 5;

/** Milliseconds of what `queue` queues: the fastest sample, each long enough for the clock. */
function timeMs(device: Device, queue: () => void): number {
  queue();
  device.synchronize();
  const sample = (numRuns: number): number => {
    const start = performance.now();
    for (let run = 0; run < numRuns; run++) queue();
    device.synchronize();
    return (performance.now() - start) / numRuns;
  };
  const numRuns = Math.max(1, Math.round(2 / sample(1)));
  const end = performance.now() + samplingMs;
  let fastest = Infinity;
  for (let count = 0; count < minNumSamples || performance.now() < end; count++) {
    fastest = Math.min(fastest, sample(numRuns));
  }
  return fastest;
}

/** Bytes per second of a copy, read and written. */
function copyRate(device: Device): number {
  const byteLength = device.kind === "cuda" ? 2 ** 30 : 2 ** 27;
  using source: DeviceBuffer = device.allocate(byteLength);
  using target: DeviceBuffer = device.allocate(byteLength);
  // Memory that was never written may not be there yet.
  device.upload(source, 0, new Uint8Array(byteLength));
  const ms = timeMs(device, () => device.copy(source, 0, target, 0, byteLength));
  return (2 * byteLength * 1000) / ms;
}

/** Runs a case; undefined where the device does not support it. */
function timeCase(
  device: Device,
  { conformanceCase }: Pick<BenchCase, "conformanceCase">,
): number | undefined {
  const problem = conformanceCase.build();
  const { op } = conformanceCase;
  if (!device.supports(op, dtypesOf(problem))) return undefined;
  using placement = new Placement(device, problem, { sharing: true, filling: true });
  const args = placement.arguments();
  using graph = device.capture(() => device.run(op, args));
  return timeMs(device, () => graph.replay());
}

/** Arithmetic per second of a large product. */
function productRate(device: Device, dtype: TensorDtype): number {
  const size = device.kind === "cuda" ? 8192 : 1536;
  const conformanceCase = matmulCase({ m: size, n: size, k: size, transposeB: true }, dtype, dtype);
  const ms = timeCase(device, { conformanceCase });
  return ms === undefined ? Number.NaN : (2 * size ** 3 * 1000) / ms;
}

function report(
  device: Device,
  cases: readonly BenchCase[],
  limits: { bytesPerSecond: number; flopsPerSecond: number },
): void {
  for (const candidate of cases) {
    const { op, label } = candidate.conformanceCase;
    const ms = timeCase(device, candidate);
    if (ms === undefined) {
      process.stdout.write(`${op} ${label}: not supported\n`);
      continue;
    }
    const bytes = candidate.bytes(candidate.conformanceCase.build());
    const limitMs = 1000 * Math.max(bytes / limits.bytesPerSecond, candidate.flops / limits.flopsPerSecond);
    const figures = [
      `${(1000 * ms).toFixed(1).padStart(10)} us`,
      `${(bytes / ms / 1e6).toFixed(1).padStart(8)} GB/s`,
      candidate.flops === 0
        ? "".padStart(15)
        : `${(candidate.flops / ms / 1e6).toFixed(1).padStart(8)} GFLOP/s`,
      `${((100 * limitMs) / ms).toFixed(1).padStart(6)} %`,
    ];
    process.stdout.write(`${figures.join("  ")}  ${op} ${label}\n`);
  }
}

const { values: options } = parseArgs({
  options: {
    device: { type: "string", default: "cpu" },
    op: { type: "string" },
    dtype: { type: "string" },
    sizes: { type: "string" },
  },
});
const kind = options.device === "cuda" ? "cuda" : "cpu";
const op = options.op;
if (op !== undefined && !opNames.some((name: OpName) => name === op)) {
  throw new ConfigError("bench", `expected --op to be an operator of src/device/ops.ts, got '${op}'`);
}
using device = await openDevice({ kind });
const bytesPerSecond = copyRate(device);
process.stdout.write(
  `${device.description}\ncopy ${(bytesPerSecond / 1e9).toFixed(1)} GB/s, read and written\n`,
);
const size =
  sizes[options.sizes === "cuda" || (options.sizes === undefined && kind === "cuda") ? "cuda" : "cpu"];
for (const dtype of (["f32", "bf16"] as const).filter((name) => (options.dtype ?? name) === name)) {
  const flopsPerSecond = productRate(device, dtype);
  process.stdout.write(
    `\n${dtype} (${dtypeBytes(dtype)} bytes), product ${(flopsPerSecond / 1e9).toFixed(1)} GFLOP/s, live ${formatBytes(device.memory().liveBytes)}\n`,
  );
  const cases = benchCases(dtype, size).filter(
    (candidate) => (op ?? candidate.conformanceCase.op) === candidate.conformanceCase.op,
  );
  report(device, cases, { bytesPerSecond, flopsPerSecond });
}
