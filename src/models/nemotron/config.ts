/**
 * Configuration of the Nemotron family: layernorm1p, squared ReLU, half-rotary positions, no linear biases.
 *
 * Keys as Hugging Face's config.json has had them over the years (transformers,
 * src/transformers/models/nemotron/configuration_nemotron.py; defaults when a key is missing are those of the 15B model).
 */
import { z } from "zod";
import { parseConfig } from "../../base/index.ts";
import { checkDecoderConfig } from "../common/config.ts";
import type { DecoderConfig } from "../common/config.ts";
import {
  firstId,
  headWidth,
  readRotary,
  refuseOthers,
  rotaryKeys,
  tokenIdKey,
  writeSharedKeys,
  writeRotary,
} from "../common/configKeys.ts";

const schema = z.looseObject({
  model_type: z.literal("nemotron").default("nemotron"),
  vocab_size: z.int().default(256000),
  hidden_size: z.int().default(6144),
  intermediate_size: z.int().default(24576),
  num_hidden_layers: z.int().default(32),
  num_attention_heads: z.int().default(48),
  num_key_value_heads: z.int().nullish(),
  head_dim: z.int().nullish(),
  kv_channels: z.int().nullish(),
  hidden_act: z.string().default("relu2"),
  max_position_embeddings: z.int().default(4096),
  initializer_range: z.number().default(0.0134),
  norm_eps: z.number().default(1e-5),
  normalization: z.string().nullish(),
  ...rotaryKeys,
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
  tie_word_embeddings: z.boolean().default(false),
  bos_token_id: tokenIdKey,
  eos_token_id: tokenIdKey,
  pad_token_id: tokenIdKey,
});

/** Reads config.json. Throws ConfigError. */
export function readNemotronConfig(json: unknown): DecoderConfig {
  const config = parseConfig("config.json", schema, json);
  const model = "Nemotron";
  refuseOthers("hidden_act", config.hidden_act, { supported: ["relu2"], model });
  refuseOthers("normalization", config.normalization ?? "layernorm1p", { supported: ["layernorm1p"], model });
  const { max_position_embeddings: maxPositions, num_attention_heads: numHeads } = config;
  const headDim = headWidth(config.head_dim ?? config.kv_channels, config.hidden_size, numHeads);
  return checkDecoderConfig({
    ...nemotronTraits,
    vocabSize: config.vocab_size,
    width: config.hidden_size,
    ffnWidth: config.intermediate_size,
    numLayers: config.num_hidden_layers,
    numHeads,
    numKvHeads: config.num_key_value_heads ?? numHeads,
    headDim,
    maxPositions,
    norm: { ...nemotronTraits.norm, eps: config.norm_eps },
    biases: { qkv: config.attention_bias, output: config.attention_bias, mlp: config.mlp_bias },
    rotary: readRotary(config, { headDim, maxPositions, defaultFraction: 0.5, model }),
    tiesEmbeddings: config.tie_word_embeddings,
    initStd: config.initializer_range,
    bosId: firstId(config.bos_token_id, 2),
    eosId: firstId(config.eos_token_id, 3),
    padId: firstId(config.pad_token_id, undefined),
  });
}

/** Writes config.json, which all versions of transformers read. */
export function writeNemotronConfig(config: DecoderConfig, dtype: string): Record<string, unknown> {
  const rotary = config.rotary ?? { rotaryDim: 0, base: 10000 };
  return {
    architectures: ["NemotronForCausalLM"],
    model_type: "nemotron",
    vocab_size: config.vocabSize,
    hidden_size: config.width,
    intermediate_size: config.ffnWidth,
    num_hidden_layers: config.numLayers,
    num_attention_heads: config.numHeads,
    num_key_value_heads: config.numKvHeads,
    head_dim: config.headDim,
    hidden_act: "relu2",
    max_position_embeddings: config.maxPositions,
    initializer_range: config.initStd,
    norm_eps: config.norm.eps,
    ...writeRotary(rotary, { fraction: rotary.rotaryDim / config.headDim }),
    attention_bias: config.biases.qkv,
    mlp_bias: config.biases.mlp,
    ...writeSharedKeys(config, dtype),
  };
}

/** What all models of the family have in common. */
export const nemotronTraits = {
  family: "nemotron",
  norm: { kind: "layer-norm", eps: 1e-5, gainOffset: 1, hasBias: true },
  activation: "squared-relu",
  isGated: false,
  biases: { qkv: false, output: false, mlp: false },
  hasLearnedPositions: false,
  tiesEmbeddings: false,
  bosId: 2,
  eosId: 3,
  padId: 0,
} as const;
