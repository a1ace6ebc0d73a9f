/**
 * Named sizes: the six public models of the family (NeMo, nemo/collections/llm/gpt/model/nemotron.py, and the config.json of the
 * published checkpoints) and small ones for CPUs and single GPUs.
 */
import { ConfigError, nearest } from "../../base/index.ts";
import { checkDecoderConfig } from "../common/config.ts";
import type { DecoderConfig } from "../common/config.ts";
import { nemotronTraits } from "./config.ts";

type Shape = Pick<
  DecoderConfig,
  "numLayers" | "width" | "ffnWidth" | "numHeads" | "numKvHeads" | "headDim" | "initStd"
> &
  Partial<Pick<DecoderConfig, "vocabSize" | "maxPositions">>;

const shapes: Readonly<Record<string, Shape>> = {
  "nemotron-3-8b": {
    numLayers: 32,
    width: 4096,
    ffnWidth: 16384,
    numHeads: 32,
    numKvHeads: 32,
    headDim: 128,
    initStd: 0.01,
  },
  "nemotron-3-22b": {
    numLayers: 40,
    width: 6144,
    ffnWidth: 24576,
    numHeads: 48,
    numKvHeads: 48,
    headDim: 128,
    initStd: 0.008,
  },
  "minitron-4b": {
    numLayers: 32,
    width: 3072,
    ffnWidth: 9216,
    numHeads: 24,
    numKvHeads: 8,
    headDim: 128,
    initStd: 0.0134,
  },
  "minitron-8b": {
    numLayers: 32,
    width: 4096,
    ffnWidth: 16384,
    numHeads: 48,
    numKvHeads: 8,
    headDim: 128,
    initStd: 0.0134,
  },
  "nemotron-4-15b": {
    numLayers: 32,
    width: 6144,
    ffnWidth: 24576,
    numHeads: 48,
    numKvHeads: 8,
    headDim: 128,
    initStd: 0.0134,
  },
  "nemotron-4-340b": {
    numLayers: 96,
    width: 18432,
    ffnWidth: 73728,
    numHeads: 96,
    numKvHeads: 8,
    headDim: 192,
    initStd: 0.0063,
  },
  "nemotron-tiny": {
    numLayers: 4,
    width: 128,
    ffnWidth: 512,
    numHeads: 4,
    numKvHeads: 4,
    headDim: 32,
    initStd: 0.02,
    vocabSize: 4096,
    maxPositions: 512,
  },
  "nemotron-10m": {
    numLayers: 6,
    width: 256,
    ffnWidth: 1024,
    numHeads: 8,
    numKvHeads: 8,
    headDim: 32,
    initStd: 0.02,
    vocabSize: 8192,
    maxPositions: 512,
  },
  "nemotron-25m": {
    numLayers: 8,
    width: 384,
    ffnWidth: 1536,
    numHeads: 6,
    numKvHeads: 6,
    headDim: 64,
    initStd: 0.02,
    vocabSize: 16384,
    maxPositions: 1024,
  },
  "nemotron-125m": {
    numLayers: 12,
    width: 768,
    ffnWidth: 3072,
    numHeads: 12,
    numKvHeads: 12,
    headDim: 64,
    initStd: 0.02,
    vocabSize: 32768,
    maxPositions: 2048,
  },
};

/** Other names of the same shapes. */
export const nemotronAliases: Readonly<Record<string, string>> = {
  "nemotron-3-8b-base-4k": "nemotron-3-8b",
  "nemotron-3-4b": "minitron-4b",
  "nemotron-mini-4b": "minitron-4b",
};

export const nemotronPresetNames = Object.keys(shapes);

/** The configuration of a named size. Throws ConfigError with the nearest name. */
export function nemotronPreset(name: string): DecoderConfig {
  const key = name.toLowerCase();
  const shape = shapes[nemotronAliases[key] ?? key];
  if (shape === undefined) {
    const near = nearest(key, [...nemotronPresetNames, ...Object.keys(nemotronAliases)]);
    throw new ConfigError("model", `expected a model name, got '${name}'`, {
      hint: near === undefined ? `known: ${nemotronPresetNames.join(", ")}` : `did you mean '${near}'?`,
    });
  }
  return checkDecoderConfig({
    ...nemotronTraits,
    vocabSize: 256000,
    maxPositions: 4096,
    ...shape,
    rotary: { rotaryDim: shape.headDim / 2, base: 10000 },
  });
}
