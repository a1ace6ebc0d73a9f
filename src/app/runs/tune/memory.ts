/** What a tuning run will take, before any weight is read: a frozen base has neither gradients nor an optimizer's state. */
import { freemem } from "node:os";
import { ConfigError, formatBytes, numElements } from "../../../base/index.ts";
import type { Device } from "../../../device/index.ts";
import {
  adaptedProjections,
  adapterMemory,
  adapterSpecs,
  countParameters,
  modelFamily,
  trainingMemory,
} from "../../../models/index.ts";
import type { DecoderConfig, TrainingMemory } from "../../../models/index.ts";
import { batchOf } from "../../../train/index.ts";
import type { TuneRecipe } from "../../../train/index.ts";
import { batchOptions } from "./parts.ts";
import type { PreparedTuning } from "./prepare.ts";

export interface TuneEstimate {
  parameters: number;
  trained: number;
  memory: TrainingMemory;
  availableBytes: number;
  fits: boolean;
}

export interface TuneSizes {
  dtype: "f32" | "bf16";
  chunkBytes: number;
}

/** Memory of the recipe's micro-batch against what the device has. Throws ConfigError for an adapter that the model cannot have. */
export function estimateTuning(
  prepared: PreparedTuning,
  { dtype, chunkBytes }: TuneSizes,
  device: Device,
): TuneEstimate {
  const { recipe, config } = prepared;
  const { method, optim, recompute, quantise } = recipe;
  const shared = {
    dtype,
    gradientDtype: dtype,
    moments: optim.moments,
    master: optim.master,
    recompute,
    ...microBatchSize(prepared),
    chunkBytes,
  };
  const parameters = countParameters(config);
  const trained = method === undefined ? parameters : countTrained(config, method);
  const memory =
    method === undefined
      ? trainingMemory(config, shared)
      : adapterMemory(config, {
          ...shared,
          quantise,
          numTrained: trained,
          adapted: adaptedProjections(config, { family: modelFamily(config), config: method }),
        });
  const { freeBytes, reservedBytes, liveBytes } = device.memory();
  const availableBytes = freeBytes === undefined ? freemem() : freeBytes + reservedBytes - liveBytes;
  return { parameters, trained, memory, availableBytes, fits: memory.total <= availableBytes };
}

/** Rows of the largest micro-batch, and tokens of its texts, of which comparisons may share rows. */
function microBatchSize(prepared: PreparedTuning): { numRows: number; numTokens: number } {
  const { recipe, maxLength, numVirtualTokens, data } = prepared;
  const { longest } = data.statistics;
  if (recipe.objective.kind === "sft") {
    const text = recipe.data.packing ? maxLength : longest;
    const numRows = recipe.microBatch * (text + numVirtualTokens);
    return { numRows, numTokens: numRows };
  }
  const example = largestComparison(prepared);
  return {
    numRows: recipe.microBatch * example.numRows,
    numTokens: recipe.microBatch * example.numTokens,
  };
}

/** Of one example among as many as a comparison needs; KTO's texts have one mismatched text each. */
function largestComparison(prepared: PreparedTuning): { numRows: number; numTokens: number } {
  const { examples, kind } = prepared.data;
  const options = batchOptions(prepared);
  const count = kind === "unpaired" ? 2 : 1;
  const largest = { numRows: 0, numTokens: 0 };
  for (let first = 0; first < examples.length; first++) {
    const group = Array.from({ length: count }, (_, i) => examples[(first + i) % examples.length]);
    const { tokens, rowOfToken = tokens } = batchOf(group, options);
    largest.numRows = Math.max(largest.numRows, Math.ceil(tokens.length / count));
    largest.numTokens = Math.max(largest.numTokens, Math.ceil(rowOfToken.length / count));
  }
  return largest;
}

function countTrained(config: DecoderConfig, method: NonNullable<TuneRecipe["method"]>): number {
  const specs = adapterSpecs(config, { family: modelFamily(config), config: method });
  return specs.reduce((total, { shape }) => total + numElements(shape), 0);
}

const partsOf = ({ parameters, gradients, optimizer, activations, logits }: TrainingMemory): string =>
  `weights ${formatBytes(parameters)}, gradients ${formatBytes(gradients)}, optimizer ${formatBytes(optimizer)}, ` +
  `activations ${formatBytes(activations)}, logits ${formatBytes(logits)}`;

/** "memory     1.2 GiB of 20 GiB available: weights …" */
export function describeEstimate({ memory, availableBytes, fits }: TuneEstimate): string {
  return `memory     ${formatBytes(memory.total)} of ${formatBytes(availableBytes)} available${fits ? "" : " (does NOT fit)"}: ${partsOf(memory)}`;
}

/** Throws ConfigError with the numbers when the run cannot fit. */
export function expectTuningFits(estimate: TuneEstimate): void {
  const { memory, availableBytes, fits } = estimate;
  if (fits) return;
  throw new ConfigError(
    "tune",
    `expected a run within ${formatBytes(availableBytes)}, got one of ${formatBytes(memory.total)}: ${partsOf(memory)}`,
    { hint: "lower microBatch or maxLength, set recompute to block, or quantise to nf4" },
  );
}
