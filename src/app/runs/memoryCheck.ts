/** What a run will take: memory against what the device has, time against the speed of a trial step. */
import { freemem } from "node:os";
import { ConfigError, formatBytes, formatCount, formatDuration } from "../../base/index.ts";
import type { Device, MemoryStatistics } from "../../device/index.ts";
import { countParameters, operationsPerToken, trainingMemory } from "../../models/index.ts";
import type { DecoderConfig, TrainingMemory } from "../../models/index.ts";
import { countSteps } from "../../train/index.ts";
import type { Recipe } from "../../train/index.ts";

/** Memory for the logits of one chunk: large matrices for a GPU, a share of the cache for a CPU. */
export function lossChunkBytes(recipe: Recipe, device: Pick<Device, "kind">): number {
  return recipe.lossChunkBytes ?? (device.kind === "cuda" ? 2 ** 30 : 2 ** 24);
}

export interface RunEstimate {
  parameters: number;
  numSteps: number;
  memory: TrainingMemory;
  availableBytes: number;
  /** Bytes of the GPU's memory that other processes hold; 0 on the CPU. */
  otherBytes: number;
  fits: boolean;
  /** Floating-point operations of the whole run. */
  operations: number;
}

export function estimateRun(recipe: Recipe, config: DecoderConfig, device: Device): RunEstimate {
  const memory = trainingMemory(config, {
    dtype: recipe.precision,
    gradientDtype: recipe.gradients ?? recipe.precision,
    moments: recipe.optim.moments,
    master: recipe.optim.master,
    recompute: recipe.recompute,
    numRows: recipe.microBatchSequences * recipe.sequenceLength,
    chunkBytes: lossChunkBytes(recipe, device),
  });
  const statistics = device.memory();
  const availableBytes =
    statistics.freeBytes === undefined
      ? freemem()
      : statistics.freeBytes + statistics.reservedBytes - statistics.liveBytes;
  return {
    parameters: countParameters(config),
    numSteps: countSteps({ batchTokens: recipe.batchTokens, ramp: recipe.batchRamp }, recipe),
    memory,
    availableBytes,
    otherBytes: device.kind === "cuda" ? heldByOthers(statistics) : 0,
    fits: memory.total <= availableBytes,
    operations: operationsPerToken(config, recipe.sequenceLength).training * recipe.totalTokens,
  };
}

function heldByOthers({ totalBytes = 0, freeBytes = totalBytes, reservedBytes }: MemoryStatistics): number {
  return Math.max(0, totalBytes - freeBytes - reservedBytes);
}

/** Throws ConfigError with the numbers when the run cannot fit. */
export function expectFits({ memory, availableBytes, otherBytes, fits }: RunEstimate): void {
  if (fits) return;
  const parts =
    `weights ${formatBytes(memory.parameters)}, gradients ${formatBytes(memory.gradients)}, optimizer ${formatBytes(memory.optimizer)}, ` +
    `activations ${formatBytes(memory.activations)}, logits ${formatBytes(memory.logits)}`;
  throw new ConfigError(
    "train",
    `expected a run within ${formatBytes(availableBytes)}, got one of ${formatBytes(memory.total)}: ${parts}`,
    {
      hint:
        memory.total <= availableBytes + otherBytes
          ? `other processes hold ${formatBytes(otherBytes)} of the GPU; end them ('nvidia-smi') or choose another with CUDA_VISIBLE_DEVICES`
          : "lower microBatchSequences or sequenceLength, set recompute to block, optim.moments to bf16, or optim.master to false",
    },
  );
}

export function printEstimate(
  estimate: RunEstimate,
  device: Device,
  options: { isJson: boolean; tokensPerSecond: number | undefined; totalTokens: number },
): void {
  const { memory } = estimate;
  const seconds =
    options.tokensPerSecond === undefined ? undefined : options.totalTokens / options.tokensPerSecond;
  if (options.isJson) {
    process.stdout.write(
      `${JSON.stringify({ device: device.description, ...estimate, tokensPerSecond: options.tokensPerSecond, seconds }, undefined, 2)}\n`,
    );
    return;
  }
  const rows: [string, string][] = [
    ["device", device.description],
    ["parameters", estimate.parameters.toLocaleString("en-US")],
    ["steps", `${estimate.numSteps.toLocaleString("en-US")} over ${formatCount(options.totalTokens)} tokens`],
    ["operations", `${estimate.operations.toExponential(2)} FLOP`],
    ["weights", formatBytes(memory.parameters)],
    ["gradients", formatBytes(memory.gradients)],
    ["optimizer", formatBytes(memory.optimizer)],
    ["activations", formatBytes(memory.activations)],
    ["logits", formatBytes(memory.logits)],
    [
      "memory",
      `${formatBytes(memory.total)} of ${formatBytes(estimate.availableBytes)} available: ${estimate.fits ? "fits" : "does NOT fit"}`,
    ],
  ];
  if (seconds !== undefined && options.tokensPerSecond !== undefined) {
    rows.push([
      "time",
      `${formatDuration(seconds)} at ${formatCount(options.tokensPerSecond)} tokens/s (measured over one step)`,
    ]);
  }
  process.stdout.write(`${rows.map(([label, value]) => `${label.padEnd(12)} ${value}`).join("\n")}\n`);
}
