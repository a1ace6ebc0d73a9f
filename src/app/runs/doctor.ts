/** Prints what this machine has, as sentences or JSON. */
import { formatBytes } from "../../base/index.ts";
import { describeDevices } from "../../device/index.ts";
import type { DeviceDescriptions } from "../../device/index.ts";
import { labelled } from "../terminal/columns.ts";

type Row = readonly [label: string, value: string];

const labelWidth = 14;

function cpuRows({ cpu }: DeviceDescriptions): Row[] {
  return [
    ["processor", `${cpu.model}, ${cpu.numUsableProcessors} of ${cpu.numProcessors} cores usable`],
    ["memory", formatBytes(cpu.memoryBytes)],
    ["instructions", `${cpu.level ?? "none"} (this machine runs ${cpu.supportedLevels.join(", ")})`],
    [
      "compiler",
      cpu.compiler === undefined
        ? "none: the slow reference backend will run"
        : `${cpu.compiler.command} (${cpu.compiler.version})`,
    ],
    ["kernel cache", `${cpu.cacheFolder}${cpu.isCacheWritable ? "" : " (not writable)"}`],
    ...cpu.problems.map((problem): Row => ["", `! ${problem}`]),
  ];
}

function cudaRows({ cuda }: DeviceDescriptions): Row[] {
  const gpus = cuda.gpus.map(({ index, name, computeCapability, totalBytes, multiprocessorCount }): Row => [
    `gpu ${index}`,
    `${name}, compute ${computeCapability}, ${multiprocessorCount} multiprocessors, ${formatBytes(totalBytes)}`,
  ]);
  const libraries = cuda.libraries.map(({ name, path, version, problem }): Row => [
    name,
    problem === undefined ? `${version ?? "?"} (${path ?? "?"})` : `! ${problem}`,
  ]);
  return [
    ...(gpus.length === 0 ? [["gpu", "none found: everything runs on the CPU"] as const] : gpus),
    ...libraries,
  ];
}

export async function printDoctor(options: { json?: boolean }): Promise<void> {
  const devices = await describeDevices();
  const platform = `${process.platform} ${process.arch}`;
  if (options.json === true) {
    process.stdout.write(
      `${JSON.stringify({ node: process.version, platform, ...devices }, undefined, 2)}\n`,
    );
    return;
  }
  const rows: Row[] = [
    ["node", `${process.version} on ${platform}`],
    ...cpuRows(devices),
    ...cudaRows(devices),
  ];
  for (const [label, value] of rows) process.stdout.write(labelled(label.padEnd(labelWidth), value));
}
