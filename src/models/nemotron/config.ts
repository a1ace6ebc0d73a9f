/**
 * Configuration of the Nemotron family: layernorm1p, squared ReLU, half-rotary positions, no linear biases.
 *
 * Keys as Hugging Face's config.json has had them over the years (transformers,
 * src/transformers/models/nemotron/configuration_nemotron.py; defaults when a key is missing are those of the 15B model).
 */
import { z } from "zod";
import { ConfigError, parseConfig } from "../../base/index.ts";
import { checkDecoderConfig } from "../common/config.ts";
import type { DecoderConfig } from "../common/config.ts";

const tokenId = z.union([z.int(), z.array(z.int()).nonempty()]).nullish();

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
  rope_theta: z.number().nullish(),
  rope_percent: z.number().nullish(),
  rope_percentage: z.number().nullish(),
  partial_rotary_factor: z.number().nullish(),
  rope_scaling: z.unknown().optional(),
  rope_parameters: z
    .looseObject({
      rope_theta: z.number().nullish(),
      partial_rotary_factor: z.number().nullish(),
      rope_type: z.string().nullish(),
    })
    .nullish(),
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
  tie_word_embeddings: z.boolean().default(false),
  bos_token_id: tokenId,
  eos_token_id: tokenId,
  pad_token_id: tokenId,
});

/** Reads config.json. Throws ConfigError. */
export function readNemotronConfig(json: unknown): DecoderConfig {
  const config = parseConfig("config.json", schema, json);
  refuse("hidden_act", config.hidden_act, ["relu2"]);
  if (config.normalization != null) refuse("normalization", config.normalization, ["layernorm1p"]);
  refuse("rope_type", config.rope_parameters?.rope_type ?? "default", ["default"]);
  if (config.rope_scaling != null) refuse("rope_scaling", JSON.stringify(config.rope_scaling), ["null"]);

  const headDim = config.head_dim ?? config.kv_channels ?? config.hidden_size / config.num_attention_heads;
  const rotaryFraction =
    config.rope_parameters?.partial_rotary_factor ??
    config.partial_rotary_factor ??
    config.rope_percent ??
    config.rope_percentage ??
    0.5;
  return checkDecoderConfig({
    ...nemotronTraits,
    vocabSize: config.vocab_size,
    width: config.hidden_size,
    ffnWidth: config.intermediate_size,
    numLayers: config.num_hidden_layers,
    numHeads: config.num_attention_heads,
    numKvHeads: config.num_key_value_heads ?? config.num_attention_heads,
    headDim,
    maxPositions: config.max_position_embeddings,
    norm: { ...nemotronTraits.norm, eps: config.norm_eps },
    biases: { qkv: config.attention_bias, output: config.attention_bias, mlp: config.mlp_bias },
    rotary: {
      rotaryDim: Math.floor(headDim * rotaryFraction),
      base: config.rope_parameters?.rope_theta ?? config.rope_theta ?? 10000,
    },
    tiesEmbeddings: config.tie_word_embeddings,
    initStd: config.initializer_range,
    bosId: firstId(config.bos_token_id, 2),
    eosId: firstId(config.eos_token_id, 3),
    padId: firstId(config.pad_token_id, undefined),
  });
}

function refuse(key: string, value: string, supported: readonly string[]): void {
  if (!supported.includes(value)) {
    throw new ConfigError(
      "config.json",
      `${key}: expected ${supported.join(" or ")} for a Nemotron model, got ${value}`,
    );
  }
}

function firstId(
  value: number | readonly number[] | null | undefined,
  missing: number | undefined,
): number | undefined {
  if (value === null || value === undefined) return missing;
  return typeof value === "number" ? value : value[0];
}

/** Writes config.json with the older and the newest spelling of the rotary keys, so that all transformers versions read it. */
export function writeNemotronConfig(config: DecoderConfig, dtype: string): Record<string, unknown> {
  const rotary = config.rotary ?? { rotaryDim: 0, base: 10000 };
  const partialRotaryFactor = rotary.rotaryDim / config.headDim;
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
    rope_theta: rotary.base,
    partial_rotary_factor: partialRotaryFactor,
    rope_parameters: {
      rope_theta: rotary.base,
      partial_rotary_factor: partialRotaryFactor,
      rope_type: "default",
    },
    attention_bias: config.biases.qkv,
    mlp_bias: config.biases.mlp,
    tie_word_embeddings: config.tiesEmbeddings,
    use_cache: true,
    bos_token_id: config.bosId ?? null,
    eos_token_id: config.eosId ?? null,
    pad_token_id: config.padId ?? null,
    torch_dtype: dtype,
    dtype,
  };
}

/** What all models of the family have in common. */
export const nemotronTraits = {
  family: "nemotron",
  norm: { kind: "layer-norm", eps: 1e-5, gainOffset: 1, hasBias: true },
  activation: "squared-relu",
  isGated: false,
  biases: { qkv: false, output: false, mlp: false },
  tiesEmbeddings: false,
  bosId: 2,
  eosId: 3,
  padId: 0,
} as const;
