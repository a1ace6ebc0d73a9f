/** Public sizes of the Llama family by name, from the config.json of the published checkpoints, and small ones for CPUs. */
import { checkDecoderConfig } from "../common/config.ts";
import type { DecoderConfig } from "../common/config.ts";
import type { RotaryScaling } from "../common/rotary.ts";
import { llamaTraits } from "./config.ts";
import type { LlamaDialect } from "./config.ts";

/** L, C, F, H, G */
type Size = readonly [
  numLayers: number,
  width: number,
  ffnWidth: number,
  numHeads: number,
  numKvHeads: number,
];

interface Rest {
  vocabSize: number;
  maxPositions: number;
  /** Base of the rotary angles. */
  base?: number;
  scaling?: RotaryScaling;
  eps?: number;
  headDim?: number;
  tiesEmbeddings?: boolean;
  initStd?: number;
  bosId?: number;
  eosId?: number;
}

function preset(dialect: LlamaDialect, size: Size, rest: Rest): DecoderConfig {
  const [numLayers, width, ffnWidth, numHeads, numKvHeads] = size;
  const { base = 10000, scaling, eps = 1e-5, headDim = width / numHeads, ...fields } = rest;
  const traits = llamaTraits(dialect);
  return checkDecoderConfig({
    ...traits,
    ...fields,
    numLayers,
    width,
    ffnWidth,
    numHeads,
    numKvHeads,
    headDim,
    norm: { ...traits.norm, eps },
    rotary: { rotaryDim: headDim, base, scaling },
  });
}

const llama2: Rest = { vocabSize: 32000, maxPositions: 4096 };
const llama3: Rest = {
  vocabSize: 128256,
  maxPositions: 8192,
  base: 500000,
  bosId: 128000,
  eosId: 128001,
};
const stretched = (factor: number): Rest => ({
  ...llama3,
  maxPositions: 131072,
  scaling: {
    kind: "llama3",
    factor,
    lowFrequencyFactor: 1,
    highFrequencyFactor: 4,
    originalPositions: 8192,
  },
});
const qwen: Rest = {
  vocabSize: 151936,
  maxPositions: 32768,
  base: 1000000,
  eps: 1e-6,
  bosId: 151643,
  eosId: 151643,
};
const tiny: Rest = { vocabSize: 4096, maxPositions: 512 };

export const llamaPresets: Readonly<Record<LlamaDialect, Readonly<Record<string, () => DecoderConfig>>>> = {
  llama: {
    "llama-1-7b": () =>
      preset("llama", [32, 4096, 11008, 32, 32], { ...llama2, maxPositions: 2048, eps: 1e-6 }),
    "llama-2-7b": () => preset("llama", [32, 4096, 11008, 32, 32], llama2),
    "llama-2-13b": () => preset("llama", [40, 5120, 13824, 40, 40], llama2),
    "llama-2-70b": () => preset("llama", [80, 8192, 28672, 64, 8], llama2),
    "llama-3-8b": () => preset("llama", [32, 4096, 14336, 32, 8], llama3),
    "llama-3-70b": () => preset("llama", [80, 8192, 28672, 64, 8], llama3),
    "llama-3.1-8b": () => preset("llama", [32, 4096, 14336, 32, 8], stretched(8)),
    "llama-3.1-70b": () => preset("llama", [80, 8192, 28672, 64, 8], stretched(8)),
    "llama-3.1-405b": () => preset("llama", [126, 16384, 53248, 128, 8], stretched(8)),
    "llama-3.2-1b": () =>
      preset("llama", [16, 2048, 8192, 32, 8], { ...stretched(32), tiesEmbeddings: true }),
    "llama-3.2-3b": () =>
      preset("llama", [28, 3072, 8192, 24, 8], { ...stretched(32), tiesEmbeddings: true }),
    "tinyllama-1.1b": () => preset("llama", [22, 2048, 5632, 32, 4], { ...llama2, maxPositions: 2048 }),
    "llama-tiny": () => preset("llama", [4, 128, 352, 4, 2], tiny),
    "llama-25m": () => preset("llama", [8, 384, 1024, 6, 2], { vocabSize: 16384, maxPositions: 1024 }),
    "llama-125m": () => preset("llama", [12, 768, 2048, 12, 4], { vocabSize: 32768, maxPositions: 2048 }),
  },
  mistral: {
    // Version 0.1 slides a window of 4,096 tokens; within it, it is this.
    "mistral-7b-v0.1": () =>
      preset("mistral", [32, 4096, 14336, 32, 8], { vocabSize: 32000, maxPositions: 4096 }),
    "mistral-7b-v0.3": () =>
      preset("mistral", [32, 4096, 14336, 32, 8], { vocabSize: 32768, maxPositions: 32768, base: 1000000 }),
    "mistral-nemo-12b": () =>
      preset("mistral", [40, 5120, 14336, 32, 8], {
        vocabSize: 131072,
        maxPositions: 131072,
        base: 1000000,
        headDim: 128,
      }),
  },
  qwen2: {
    "qwen2.5-0.5b": () => preset("qwen2", [24, 896, 4864, 14, 2], { ...qwen, tiesEmbeddings: true }),
    "qwen2.5-1.5b": () =>
      preset("qwen2", [28, 1536, 8960, 12, 2], { ...qwen, maxPositions: 131072, tiesEmbeddings: true }),
    "qwen2.5-3b": () => preset("qwen2", [36, 2048, 11008, 16, 2], { ...qwen, tiesEmbeddings: true }),
    "qwen2.5-7b": () =>
      preset("qwen2", [28, 3584, 18944, 28, 4], { ...qwen, vocabSize: 152064, maxPositions: 131072 }),
    "qwen2.5-14b": () =>
      preset("qwen2", [48, 5120, 13824, 40, 8], {
        ...qwen,
        vocabSize: 152064,
        maxPositions: 131072,
        eps: 1e-5,
      }),
    "qwen2.5-32b": () =>
      preset("qwen2", [64, 5120, 27648, 40, 8], {
        ...qwen,
        vocabSize: 152064,
        maxPositions: 131072,
        eps: 1e-5,
      }),
    "qwen2.5-72b": () =>
      preset("qwen2", [80, 8192, 29568, 64, 8], {
        ...qwen,
        vocabSize: 152064,
        maxPositions: 131072,
        eps: 1e-5,
      }),
  },
};

export const llamaAliases: Readonly<Record<LlamaDialect, Readonly<Record<string, string>>>> = {
  llama: { "llama-7b": "llama-1-7b", "llama-3.3-70b": "llama-3.1-70b" },
  mistral: { "mistral-7b": "mistral-7b-v0.3", "mistral-7b-v0.2": "mistral-7b-v0.3" },
  qwen2: { "qwen2-0.5b": "qwen2.5-0.5b", "qwen2-1.5b": "qwen2.5-1.5b", "qwen2-7b": "qwen2.5-7b" },
};
