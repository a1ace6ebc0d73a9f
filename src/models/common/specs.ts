/** The parameters of a decoder, their shapes and how they begin: the one list that counting, allocating and loading share. */
import { dtypeBytes, numElements } from "../../base/index.ts";
import type { FloatDtype } from "../../base/index.ts";
import { quantisedBytes, qkvWidth } from "../../tensor/index.ts";
import type { Initializer, ParameterSpec, QuantisedFormat } from "../../tensor/index.ts";
import type { DecoderConfig } from "./config.ts";

/** Names of one layer's parameters. */
export function layerNames(layer: number) {
  const prefix = `layers.${layer}`;
  return {
    attentionNormGain: `${prefix}.attention.norm.gain`,
    attentionNormBias: `${prefix}.attention.norm.bias`,
    qkv: `${prefix}.attention.qkv.weight`,
    qkvBias: `${prefix}.attention.qkv.bias`,
    output: `${prefix}.attention.output.weight`,
    outputBias: `${prefix}.attention.output.bias`,
    mlpNormGain: `${prefix}.mlp.norm.gain`,
    mlpNormBias: `${prefix}.mlp.norm.bias`,
    up: `${prefix}.mlp.up.weight`,
    upBias: `${prefix}.mlp.up.bias`,
    down: `${prefix}.mlp.down.weight`,
    downBias: `${prefix}.mlp.down.bias`,
  } as const;
}

export const embeddingName = "embedding.weight";
export const positionsName = "positions.weight";
export const finalNormGainName = "norm.gain";
export const finalNormBiasName = "norm.bias";
export const headName = "head.weight";

/** Every parameter in order: embedding, learned positions, layers, final norm, head. */
export function parameterSpecs(config: DecoderConfig): ParameterSpec[] {
  const { width, ffnWidth, vocabSize, numLayers, norm, biases, initStd } = config;
  const normal: Initializer = { kind: "normal", std: initStd };
  const scaled: Initializer = { kind: "normal", std: initStd / Math.sqrt(2 * numLayers) };
  const zero: Initializer = { kind: "constant", value: 0 };
  const one: Initializer = { kind: "constant", value: 1 - norm.gainOffset };
  const qkvRows = qkvWidth(config);
  const upRows = config.isGated ? 2 * ffnWidth : ffnWidth;
  const matrix = (name: string, rows: number, columns: number, init = normal): ParameterSpec => ({
    name,
    shape: [rows, columns],
    init,
    decays: true,
  });
  const vector = (name: string, length: number, init: Initializer): ParameterSpec => ({
    name,
    shape: [length],
    init,
    decays: false,
  });
  const optional = (isPresent: boolean, spec: ParameterSpec): ParameterSpec[] => (isPresent ? [spec] : []);

  const layers = Array.from({ length: numLayers }, (_, layer) => {
    const names = layerNames(layer);
    return [
      vector(names.attentionNormGain, width, one),
      ...optional(norm.hasBias, vector(names.attentionNormBias, width, zero)),
      matrix(names.qkv, qkvRows, width),
      ...optional(biases.qkv, vector(names.qkvBias, qkvRows, zero)),
      matrix(names.output, width, config.numHeads * config.headDim, scaled),
      ...optional(biases.output, vector(names.outputBias, width, zero)),
      vector(names.mlpNormGain, width, one),
      ...optional(norm.hasBias, vector(names.mlpNormBias, width, zero)),
      matrix(names.up, upRows, width),
      ...optional(biases.mlp, vector(names.upBias, upRows, zero)),
      matrix(names.down, width, ffnWidth, scaled),
      ...optional(biases.mlp, vector(names.downBias, width, zero)),
    ];
  });
  return [
    matrix(embeddingName, vocabSize, width),
    ...optional(config.hasLearnedPositions, matrix(positionsName, config.maxPositions, width)),
    ...layers.flat(),
    vector(finalNormGainName, width, one),
    ...optional(norm.hasBias, vector(finalNormBiasName, width, zero)),
    ...optional(!config.tiesEmbeddings, matrix(headName, vocabSize, width)),
  ];
}

/** Whether a parameter is what a projection multiplies by. */
export function isBlockMatrix({ name, shape }: Pick<ParameterSpec, "name" | "shape">): boolean {
  return shape.length === 2 && name.startsWith("layers.");
}

/** A matrix that is held in another form than its model's dtype. */
export interface QuantisedSpec extends ParameterSpec {
  format: QuantisedFormat;
}

/**
 * The parameters of a model whose blocks' matrices are quantised: those in floats, and the others. Embedding and head stay in floats, as
 * QLoRA leaves them: an error there is an error of every token, and the loss reads the head in pieces of its own.
 */
export function splitSpecs(
  config: DecoderConfig,
  format: QuantisedFormat | undefined,
): { dense: ParameterSpec[]; quantised: QuantisedSpec[] } {
  const specs = parameterSpecs(config);
  if (format === undefined) return { dense: specs, quantised: [] };
  return {
    dense: specs.filter((spec) => !isBlockMatrix(spec)),
    quantised: specs.filter(isBlockMatrix).map((spec) => ({ ...spec, format })),
  };
}

/** Parameters in all. */
export function countParameters(config: DecoderConfig): number {
  return parameterSpecs(config).reduce((total, { shape }) => total + numElements(shape), 0);
}

/** Parameters that take part in a matrix product for every token: all but norms, biases, learned positions and an untied embedding. */
export function countMatmulParameters(config: DecoderConfig): number {
  const matrices = parameterSpecs(config).filter(
    ({ shape, name }) =>
      shape.length === 2 && name !== positionsName && (name !== embeddingName || config.tiesEmbeddings),
  );
  return matrices.reduce((total, { shape }) => total + numElements(shape), 0);
}

/** Bytes of a model's weights on a device, as its arenas and quantised matrices hold them. */
export function weightBytes(config: DecoderConfig, dtype: FloatDtype, format?: QuantisedFormat): number {
  const { dense, quantised } = splitSpecs(config, format);
  const floats = dense.reduce((total, { shape }) => total + numElements(shape), 0) * dtypeBytes(dtype);
  return quantised.reduce((total, spec) => total + quantisedBytes(spec.shape, spec), floats);
}

/** Bytes of the largest quantised matrix in floats: what a product of many rows makes for its length. */
export function largestDequantisedBytes(
  config: DecoderConfig,
  dtype: FloatDtype,
  format: QuantisedFormat | undefined,
): number {
  const sizes = splitSpecs(config, format).quantised.map(({ shape }) => numElements(shape));
  return Math.max(0, ...sizes) * dtypeBytes(dtype);
}
