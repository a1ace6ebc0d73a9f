/**
 * Arithmetic on sizes: memory to train and to serve, and operations per token, without allocating anything.
 *
 * Counting follows what the decoder keeps (decoder.ts): per row and layer the two sums of the stream, the projections, the attention output
 * and its statistics; normalised rows and activations only without recomputation. Where sequences share rows, attention keeps its operands
 * for every token, and its result as rows once more.
 */
import { dtypeBytes } from "../../base/index.ts";
import type { FloatDtype } from "../../base/index.ts";
import { qkvWidth } from "../../tensor/index.ts";
import type { QuantisedFormat, RecomputePolicy } from "../../tensor/index.ts";
import type { DecoderConfig } from "./config.ts";
import type { ProjectionPlace } from "./projection.ts";
import { countMatmulParameters, countParameters, largestDequantisedBytes, weightBytes } from "./specs.ts";

export interface TrainingMemoryOptions {
  dtype: FloatDtype;
  gradientDtype: FloatDtype;
  moments: "f32" | "bf16";
  master: boolean;
  recompute: RecomputePolicy;
  /** N: rows of one micro-batch. */
  numRows: number;
  /** Tokens of its sequences: more than rows where these are shared. */
  numTokens?: number | undefined;
  /** Memory for the logits of one chunk of the loss. */
  chunkBytes: number;
}

/** Bytes of each part of a training run at its peak. */
export interface TrainingMemory {
  parameters: number;
  gradients: number;
  optimizer: number;
  activations: number;
  logits: number;
  total: number;
}

/** Widths of the inputs of projections that can be made again: normalised rows and activations. The attention's output is kept anyway. */
function recomputableWidths({
  width,
  ffnWidth,
}: DecoderConfig): Readonly<Record<ProjectionPlace["site"], number>> {
  return { qkv: width, output: 0, up: width, down: ffnWidth };
}

/** Bytes per row that one layer keeps for its backward pass. */
function keptPerRow(
  config: DecoderConfig,
  { dtype, recompute }: Pick<TrainingMemoryOptions, "dtype" | "recompute">,
): number {
  const { width, ffnWidth, numHeads, headDim } = config;
  const bytes = dtypeBytes(dtype);
  if (recompute === "block") return 2 * width * bytes;
  const raised = config.isGated ? 2 * ffnWidth : ffnWidth;
  const kept = (2 * width + qkvWidth(config) + numHeads * headDim + raised) * bytes;
  const statistics = 4 * (numHeads + 4);
  const recomputable = sum(Object.values(recomputableWidths(config))) * bytes;
  return kept + statistics + (recompute === "none" ? recomputable : 0);
}

/** What one layer's backward pass needs beside what is kept: the gradients passing through and values made again. */
function workingPerRow(
  config: DecoderConfig,
  { dtype, recompute }: Pick<TrainingMemoryOptions, "dtype" | "recompute">,
): number {
  const { width, ffnWidth } = config;
  const raised = config.isGated ? 2 * ffnWidth : ffnWidth;
  const passing = Math.max(width + 2 * raised, 2 * width + 2 * qkvWidth(config));
  const again = recompute === "norm-activation" ? ffnWidth : 0;
  const block =
    recompute === "block" ? keptPerRow(config, { dtype, recompute: "none" }) / dtypeBytes(dtype) : 0;
  return (passing + again + block) * dtypeBytes(dtype);
}

type BatchSize = Pick<TrainingMemoryOptions, "numRows" | "numTokens">;

/** Bytes beyond those of its rows that sharing them costs: what a layer keeps, and what its backward pass needs beside. */
function sharingBytes(
  config: DecoderConfig,
  { dtype, numRows, numTokens = numRows }: Pick<TrainingMemoryOptions, "dtype"> & BatchSize,
): { kept: number; working: number } {
  if (numTokens === numRows) return { kept: 0, working: 0 };
  const bytes = dtypeBytes(dtype);
  const attendedBytes = config.numHeads * config.headDim * bytes;
  const qkvBytes = qkvWidth(config) * bytes;
  const numCopies = numTokens - numRows;
  return {
    kept: numCopies * (qkvBytes + attendedBytes + 4 * config.numHeads) + numRows * attendedBytes,
    working: numCopies * qkvBytes,
  };
}

/** Peak memory of training with one micro-batch under way. */
export function trainingMemory(config: DecoderConfig, options: TrainingMemoryOptions): TrainingMemory {
  const numParameters = countParameters(config);
  const parameters = numParameters * dtypeBytes(options.dtype);
  const gradients = numParameters * dtypeBytes(options.gradientDtype);
  const needsMaster = options.master && options.dtype !== "f32";
  const optimizer = numParameters * (2 * dtypeBytes(options.moments) + (needsMaster ? 4 : 0));
  const { activations, logits } = passMemory(config, options);
  const total = parameters + gradients + optimizer + activations + logits;
  return { parameters, gradients, optimizer, activations, logits, total };
}

/**
 * Activations of an adapter's step that makes its blocks again, at the peak: in one block's backward pass, when what the head needed is gone.
 * There is one gradient as wide as the feed-forward layer beside what the block keeps: each is freed as the next is made.
 */
function blockwiseActivations(
  config: DecoderConfig,
  options: Pick<TrainingMemoryOptions, "dtype"> & BatchSize,
): number {
  const { dtype, numRows } = options;
  const { width, ffnWidth, numLayers, isGated } = config;
  const streams = numLayers * keptPerRow(config, { dtype, recompute: "block" });
  const block = keptPerRow(config, { dtype, recompute: "none" });
  const passing = (3 * width + (isGated ? 2 * ffnWidth : ffnWidth)) * dtypeBytes(dtype);
  const { kept, working } = sharingBytes(config, options);
  return numRows * (streams + block + passing) + kept + working;
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

/** What a forward and a backward pass hold beside weights and their gradients. */
function passMemory(
  config: DecoderConfig,
  options: Pick<TrainingMemoryOptions, "dtype" | "recompute" | "chunkBytes"> & BatchSize,
): { activations: number; logits: number } {
  const { numRows } = options;
  const sharing = sharingBytes(config, options);
  const numSharing = options.recompute === "block" ? 1 : config.numLayers;
  const layers = config.numLayers * keptPerRow(config, options) + workingPerRow(config, options);
  const ends = 4 * config.width * dtypeBytes(options.dtype);
  const logitsOfAll = numRows * config.vocabSize * dtypeBytes(options.dtype);
  const logits = Math.min(
    logitsOfAll,
    Math.max(options.chunkBytes, config.vocabSize * dtypeBytes(options.dtype)),
  );
  const activations = numRows * (layers + ends) + numSharing * sharing.kept + sharing.working;
  return { activations, logits };
}

/** What a paged cache holds keys and values as: the model's dtype, or E4M3 codes with a scale for each token and head. */
export const cacheFormats = ["auto", "fp8"] as const;
export type CacheFormat = (typeof cacheFormats)[number];

/** Bytes of keys and values per token of context; `dtype` is the model's. */
export function cacheBytesPerToken(
  { numLayers, numKvHeads, headDim }: DecoderConfig,
  dtype: FloatDtype,
  format: CacheFormat = "auto",
): number {
  const headBytes = format === "fp8" ? headDim + dtypeBytes("f32") : headDim * dtypeBytes(dtype);
  return 2 * numLayers * numKvHeads * headBytes;
}

/** Bytes to serve `numTokens` of context in all; with quantised blocks, one matrix made whole for a prompt counts too. */
export function servingMemory(
  config: DecoderConfig,
  dtype: FloatDtype,
  numTokens: number,
  format?: QuantisedFormat,
): number {
  const weights = weightBytes(config, dtype, format) + largestDequantisedBytes(config, dtype, format);
  return weights + numTokens * cacheBytesPerToken(config, dtype);
}

/** A projection with low-rank additions: it keeps its input, and R values per row. */
export interface AdaptedProjection {
  place: ProjectionPlace;
  /** R: the sum of the ranks of the modules that share the projection. */
  rank: number;
}

export interface AdapterMemoryOptions extends Omit<TrainingMemoryOptions, "master"> {
  /** Whether the optimizer keeps bf16 parameters in f32 too. */
  master?: boolean | undefined;
  /** Numbers that are trained. */
  numTrained: number;
  /** Where low-rank additions are; absent for a method whose needs are not known, for which every input counts as kept. */
  adapted?: readonly AdaptedProjection[] | undefined;
  quantise?: QuantisedFormat | undefined;
}

/** Bytes per row of each layer that low-rank additions keep, and that frozen projections without them need not. */
function lowRankPerRow(
  config: DecoderConfig,
  { dtype, adapted }: Pick<AdapterMemoryOptions, "dtype" | "adapted">,
): { kept: number; unneeded: number }[] {
  const widths = recomputableWidths(config);
  const all = sum(Object.values(widths));
  return Array.from({ length: config.numLayers }, (_, layer) => {
    const own = adapted?.filter(({ place }) => place.layer === layer);
    const used = own === undefined ? all : sum(own.map(({ place }) => widths[place.site]));
    const ranks = sum(own?.map(({ rank }) => rank) ?? []);
    return { kept: ranks * dtypeBytes(dtype), unneeded: (all - used) * dtypeBytes(dtype) };
  });
}

/** Peak memory of training an adapter beside a frozen base (LoRA, QLoRA) with one micro-batch under way. */
export function adapterMemory(config: DecoderConfig, options: AdapterMemoryOptions): TrainingMemory {
  const { dtype, gradientDtype, moments, numTrained, quantise, recompute } = options;
  const parameters = weightBytes(config, dtype, quantise) + numTrained * dtypeBytes(dtype);
  const gradients = numTrained * dtypeBytes(gradientDtype);
  const needsMaster = options.master === true && dtype !== "f32";
  const optimizer = numTrained * (2 * dtypeBytes(moments) + (needsMaster ? 4 : 0));
  const { logits, ...pass } = passMemory(config, options);
  const layers = lowRankPerRow(config, options).map(
    ({ kept, unneeded }) => kept - (recompute === "norm-activation" ? 0 : unneeded),
  );
  const difference = options.numRows * (recompute === "block" ? Math.max(...layers) : sum(layers));
  const whole = largestDequantisedBytes(config, dtype, quantise);
  const activations =
    (recompute === "block" ? blockwiseActivations(config, options) : pass.activations) + difference + whole;
  const total = parameters + gradients + optimizer + activations + logits;
  return { parameters, gradients, optimizer, activations, logits, total };
}

/** Floating-point operations per token, a multiply-add counted as two; causal attention counted once. */
export interface OperationsPerToken {
  forward: number;
  /** Forward and backward. */
  training: number;
}

/** At sequences of `sequenceLength` tokens: 2 operations per matmul parameter, and H D T for scores and values over half the square. */
export function operationsPerToken(config: DecoderConfig, sequenceLength: number): OperationsPerToken {
  const matmuls = 2 * countMatmulParameters(config);
  const attention = 2 * config.numLayers * config.numHeads * config.headDim * sequenceLength;
  const forward = matmuls + attention;
  return { forward, training: 3 * forward };
}
