/** Prints what a model needs, without allocating it. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { formatBytes, formatCount, numElements, readJson } from "../../base/index.ts";
import { openCheckpoint } from "../../checkpoint/index.ts";
import { quantisedFormats } from "../../device/index.ts";
import {
  adaptedProjections,
  adapterMemory,
  adapterSpecs,
  cacheBytesPerToken,
  checkpointConfig,
  countParameters,
  modelFamily,
  modelPreset,
  modelPresetNames,
  operationsPerToken,
  parseAdapterConfig,
  parseModelConfig,
  servingMemory,
  trainingMemory,
} from "../../models/index.ts";
import type { DecoderConfig, TrainingMemoryOptions } from "../../models/index.ts";
import { findModel } from "./openModel.ts";

/** The configuration behind a name, a config.json, or a checkpoint of any format. Throws ConfigError, CheckpointError, FileError. */
export async function resolveModelConfig(name: string): Promise<DecoderConfig> {
  if (!existsSync(name)) return modelPreset(name);
  // The weights need not be there.
  const file = [name, join(name, "config.json")].find((path) => path.endsWith(".json") && existsSync(path));
  if (file !== undefined) return parseModelConfig(readJson("model", file));
  using checkpoint = await openCheckpoint(findModel(name));
  return checkpointConfig(checkpoint);
}

type Method = { name: string } & Pick<
  TrainingMemoryOptions,
  "dtype" | "gradientDtype" | "moments" | "master" | "recompute"
>;

const methods: readonly Method[] = [
  { name: "f32", dtype: "f32", gradientDtype: "f32", moments: "f32", master: false, recompute: "none" },
  {
    name: "bf16, f32 master, f32 moments",
    dtype: "bf16",
    gradientDtype: "bf16",
    moments: "f32",
    master: true,
    recompute: "none",
  },
  {
    name: "bf16, f32 master, bf16 moments",
    dtype: "bf16",
    gradientDtype: "bf16",
    moments: "bf16",
    master: true,
    recompute: "norm-activation",
  },
  {
    name: "bf16, stochastic rounding",
    dtype: "bf16",
    gradientDtype: "bf16",
    moments: "bf16",
    master: false,
    recompute: "norm-activation",
  },
  {
    name: "bf16, stochastic, blocks again",
    dtype: "bf16",
    gradientDtype: "bf16",
    moments: "bf16",
    master: false,
    recompute: "block",
  },
];

const gibibyte = 2 ** 30;
/** Rank of the QLoRA run that is estimated, on every matrix of the blocks. */
const qloraRank = 16;

const sumOf = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

function describe(config: DecoderConfig, sequenceLength: number) {
  const adapter = {
    family: modelFamily(config),
    config: parseAdapterConfig({ method: "lora", rank: qloraRank }),
  };
  return {
    parameters: countParameters(config),
    sequenceLength,
    operationsPerToken: operationsPerToken(config, sequenceLength),
    quantised: Object.fromEntries(
      quantisedFormats.map((format) => [format, { servingBytes: servingMemory(config, "bf16", 0, format) }]),
    ),
    qlora: adapterMemory(config, {
      dtype: "bf16",
      gradientDtype: "f32",
      moments: "f32",
      recompute: "block",
      quantise: "nf4",
      adapted: adaptedProjections(config, adapter),
      numTrained: sumOf(adapterSpecs(config, adapter).map(({ shape }) => numElements(shape))),
      numRows: sequenceLength,
      chunkBytes: gibibyte / 4,
    }),
    weights: { bf16Bytes: servingMemory(config, "bf16", 0), f32Bytes: servingMemory(config, "f32", 0) },
    cacheBytesPerToken: cacheBytesPerToken(config, "bf16"),
    fp8CacheBytesPerToken: cacheBytesPerToken(config, "bf16", "fp8"),
    training: methods.map((method) => ({
      method: method.name,
      recompute: method.recompute,
      ...trainingMemory(config, { ...method, numRows: sequenceLength, chunkBytes: gibibyte }),
    })),
  };
}

/** "rotary: 64 of 128 components, base 10000; up to 4096" */
export function describePositions({
  rotary,
  headDim,
  hasLearnedPositions,
  maxPositions,
}: DecoderConfig): string {
  const turning =
    rotary &&
    `rotary: ${rotary.rotaryDim} of ${headDim} components, base ${rotary.base}${rotary.scaling === undefined ? "" : `, ${rotary.scaling.kind} scaling by ${rotary.scaling.factor}`}`;
  return `${turning ?? (hasLearnedPositions ? "learned" : "none")}; up to ${maxPositions}`;
}

/** Formats that print the same size stand together. */
function quantisedSizes(sizes: Readonly<Record<string, { servingBytes: number }>>): string {
  const formatsOf = Map.groupBy(Object.keys(sizes), (format) => formatBytes(sizes[format].servingBytes));
  return [...formatsOf].map(([size, formats]) => `${size} in ${formats.join(" and ")}`).join(", ");
}

export async function printModelInfo(
  name: string,
  options: { sequenceLength?: number; json?: boolean },
): Promise<void> {
  const config = await resolveModelConfig(name);
  const sequenceLength = options.sequenceLength ?? config.maxPositions;
  const info = describe(config, sequenceLength);
  if (options.json === true) {
    process.stdout.write(`${JSON.stringify({ name, config, ...info }, undefined, 2)}\n`);
    return;
  }
  const rows: [string, string][] = [
    ["parameters", `${info.parameters.toLocaleString("en-US")} (${formatCount(info.parameters)})`],
    [
      "shape",
      `${config.numLayers} layers, width ${config.width}, ffn ${config.ffnWidth}, vocabulary ${config.vocabSize}`,
    ],
    ["heads", `${config.numHeads} query, ${config.numKvHeads} key/value, ${config.headDim} wide`],
    ["positions", describePositions(config)],
    ...(config.positionLimit === undefined
      ? []
      : [["limit", config.positionLimit] satisfies [string, string]]),
    [
      "forward",
      `${(info.operationsPerToken.forward / 1e9).toPrecision(4)} GFLOP per token at ${sequenceLength}`,
    ],
    [
      "training",
      `${(info.operationsPerToken.training / 1e9).toPrecision(4)} GFLOP per token at ${sequenceLength}`,
    ],
    [
      "weights",
      `${formatBytes(info.weights.bf16Bytes)} in bf16, ${formatBytes(info.weights.f32Bytes)} in f32`,
    ],
    ["quantised", quantisedSizes(info.quantised)],
    [
      "QLoRA",
      `${formatBytes(info.qlora.total)} in nf4, rank ${qloraRank} everywhere, ${sequenceLength} tokens, blocks again`,
    ],
    [
      "cache",
      `${formatBytes(info.cacheBytesPerToken)} per token in bf16, ${formatBytes(info.fp8CacheBytesPerToken)} in fp8`,
    ],
    [
      "serving",
      `${formatBytes(servingMemory(config, "bf16", config.maxPositions))} with one full context in bf16`,
    ],
  ];
  const lines = rows.map(([label, value]) => `  ${label.padEnd(11)} ${value}`);
  const table = info.training.map(
    ({ method, recompute, total }) =>
      `  ${method.padEnd(32)} ${recompute.padEnd(16)} ${formatBytes(total).padStart(12)}`,
  );
  const heading = `  ${"training with".padEnd(32)} ${"recomputing".padEnd(16)} ${"memory".padStart(12)}`;
  process.stdout.write([name, ...lines, "", heading, ...table, ""].join("\n"));
}

export function printModelList(options: { json?: boolean }): void {
  const models = modelPresetNames.map((name) => ({
    name,
    parameters: countParameters(modelPreset(name)),
  }));
  if (options.json === true) process.stdout.write(`${JSON.stringify(models, undefined, 2)}\n`);
  else
    for (const { name, parameters } of models)
      process.stdout.write(`${name.padEnd(18)} ${formatCount(parameters).padStart(8)}\n`);
}
