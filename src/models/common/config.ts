/**
 * What a decoder-only transformer is, in our terms. Each family translates its own configuration (Hugging Face's keys) into
 * this; the rest of Nautilus knows these names alone.
 */
import { ConfigError } from "../../base/index.ts";
import type { Activation } from "../../tensor/index.ts";
import type { RotaryConfig } from "./rotary.ts";

export interface DecoderConfig {
  /** The family that reads and writes this model's files: "nemotron", "llama", "mistral", "qwen2", "gpt2". */
  family: string;
  /** V */
  vocabSize: number;
  /** C */
  width: number;
  /** F */
  ffnWidth: number;
  /** L */
  numLayers: number;
  /** H */
  numHeads: number;
  /** G */
  numKvHeads: number;
  /** D; not always width / numHeads. */
  headDim: number;
  /** Longest sequence that the model is right for. */
  maxPositions: number;
  /** Why that is shorter than its files say, for people; undefined where it is not. */
  positionLimit?: string | undefined;
  norm: { kind: "layer-norm" | "rms-norm"; eps: number; gainOffset: 0 | 1; hasBias: boolean };
  activation: Activation;
  /** Gate and up projection in one matrix (2F, C), SwiGLU fashion. */
  isGated: boolean;
  biases: { qkv: boolean; output: boolean; mlp: boolean };
  /** Rotary positions; undefined for a model without. */
  rotary: RotaryConfig | undefined;
  /** A learned vector (C) for each position, added to the embedding. */
  hasLearnedPositions: boolean;
  /** The output head is the embedding. */
  tiesEmbeddings: boolean;
  /** Deviation of the initial weights; output projections get initStd / sqrt(2 L). */
  initStd: number;
  bosId: number | undefined;
  eosId: number | undefined;
  padId: number | undefined;
}

/** Far above any model; the list of a million layers' parameters alone would fill the memory. */
const maxLayers = 10_000;

/** Checks what the shapes need. Throws ConfigError naming the field. */
export function checkDecoderConfig(config: DecoderConfig): DecoderConfig {
  const counts = [
    "vocabSize",
    "width",
    "ffnWidth",
    "numLayers",
    "numHeads",
    "numKvHeads",
    "headDim",
    "maxPositions",
  ] as const;
  for (const name of counts) {
    const value = config[name];
    if (!Number.isSafeInteger(value) || value <= 0)
      throw new ConfigError("model", `${name}: expected a positive whole number, got ${value}`);
  }
  if (config.numLayers > maxLayers)
    throw new ConfigError("model", `numLayers: expected at most ${maxLayers}, got ${config.numLayers}`);
  if (config.numHeads % config.numKvHeads !== 0) {
    throw new ConfigError(
      "model",
      `expected numHeads to be a multiple of numKvHeads, got ${config.numHeads} and ${config.numKvHeads}`,
    );
  }
  const rotaryDim = config.rotary?.rotaryDim;
  if (rotaryDim !== undefined && (rotaryDim % 2 !== 0 || rotaryDim > config.headDim || rotaryDim <= 0)) {
    throw new ConfigError(
      "model",
      `expected an even rotary width within headDim ${config.headDim}, got ${rotaryDim}`,
    );
  }
  const numParameters =
    config.vocabSize * config.width + config.numLayers * config.width * (config.ffnWidth + config.width);
  if (numParameters > 1e13) {
    throw new ConfigError(
      "model",
      `expected a model of fewer than 10^13 parameters, got about ${numParameters.toExponential(1)}`,
      {
        hint: `width ${config.width}, ffnWidth ${config.ffnWidth}, ${config.numLayers} layers, vocabSize ${config.vocabSize}`,
      },
    );
  }
  return config;
}
