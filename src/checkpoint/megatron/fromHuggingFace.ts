/**
 * Hugging Face's config.json as the shape of a Megatron model, for writing `.nemo`: Nemotron, Llama, Mistral and Qwen2, with the keys of all
 * ages (transformers, the configuration file of each model). What Megatron's files cannot say is refused by its key.
 */
import { z } from "zod";
import { ConfigError, parseConfig } from "../../base/index.ts";
import type { MegatronConfig } from "./config.ts";

const component = "config.json";
const size = z.int().positive();
const number = z.number().nullish();

const schema = z.looseObject({
  model_type: z.enum(["nemotron", "llama", "mistral", "qwen2"]),
  vocab_size: size.optional(),
  hidden_size: size,
  intermediate_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  num_key_value_heads: size.nullish(),
  head_dim: size.nullish(),
  kv_channels: size.nullish(),
  max_position_embeddings: size,
  initializer_range: z.number().default(0.02),
  norm_eps: number,
  rms_norm_eps: number,
  rope_theta: number,
  rope_percent: number,
  rope_percentage: number,
  partial_rotary_factor: number,
  rope_scaling: z.unknown().optional(),
  rope_parameters: z
    .looseObject({ rope_type: z.string().nullish(), rope_theta: number, partial_rotary_factor: number })
    .nullish(),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  tie_word_embeddings: z.boolean().default(false),
  sliding_window: number,
  use_sliding_window: z.boolean().nullish(),
});

/** Reads config.json. Throws ConfigError naming the key. */
export function megatronConfig(json: unknown): MegatronConfig {
  const config = parseConfig(component, schema, json);
  const { model_type: type, rope_parameters: rope } = config;
  const isNemotron = type === "nemotron";
  refuse("rope_scaling", config.rope_scaling ?? null, [null]);
  refuse("rope_parameters.rope_type", rope?.rope_type ?? "default", ["default"]);
  if (type === "mistral" || config.use_sliding_window === true) {
    refuse("sliding_window", config.sliding_window ?? null, [null]);
  }
  const hasAttentionBias = config.attention_bias ?? false;
  const hasLinearBias = config.mlp_bias ?? false;
  refuse("attention_bias", hasAttentionBias, [hasLinearBias]);
  if (!isNemotron) refuse("mlp_bias", hasLinearBias, [false]);
  return {
    numLayers: config.num_hidden_layers,
    width: config.hidden_size,
    ffnWidth: config.intermediate_size,
    numHeads: config.num_attention_heads,
    numKvHeads: config.num_key_value_heads ?? config.num_attention_heads,
    headDim: config.head_dim ?? config.kv_channels ?? config.hidden_size / config.num_attention_heads,
    activation: isNemotron ? "squared-relu" : "fast-swiglu",
    normalization: isNemotron ? "layernorm1p" : "rmsnorm",
    normEps: (isNemotron ? config.norm_eps : config.rms_norm_eps) ?? (isNemotron ? 1e-5 : 1e-6),
    hasLinearBias,
    hasQkvBias: type === "qwen2" || hasLinearBias,
    tiesEmbeddings: config.tie_word_embeddings,
    positions: "rope",
    rotaryFraction: isNemotron ? rotaryFraction(config) : 1,
    rotaryBase: rope?.rope_theta ?? config.rope_theta ?? 10000,
    maxPositions: config.max_position_embeddings,
    initStd: config.initializer_range,
    vocabSize: config.vocab_size,
  };
}

function rotaryFraction(config: z.output<typeof schema>): number {
  return (
    config.rope_parameters?.partial_rotary_factor ??
    config.partial_rotary_factor ??
    config.rope_percent ??
    config.rope_percentage ??
    0.5
  );
}

function refuse(key: string, got: unknown, allowed: readonly unknown[]): void {
  if (allowed.includes(got)) return;
  throw new ConfigError(
    component,
    `${key}: expected ${allowed.map(String).join(" or ")}, got ${JSON.stringify(got)}`,
    {
      hint: "NeMo's files cannot say it; keep the Hugging Face folder",
      fields: { key },
    },
  );
}
