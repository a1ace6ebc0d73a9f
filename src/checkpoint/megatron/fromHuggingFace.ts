/**
 * Hugging Face's config.json as the shape of a Megatron model, for writing `.nemo`: Nemotron, Llama, Mistral, Qwen2 and GPT-2, with the keys of all
 * ages (transformers, the configuration file of each model). What Megatron's files cannot say is refused by its key.
 */
import { z } from "zod";
import { ConfigError, parseConfig } from "../../base/index.ts";
import { llama31Scaling } from "./config.ts";
import type { MegatronConfig, MegatronRopeScaling } from "./config.ts";

const component = "config.json";
const size = z.int().positive();
const number = z.number().nullish();

const ropeGroup = z.looseObject({
  type: z.string().nullish(),
  rope_type: z.string().nullish(),
  rope_theta: number,
  partial_rotary_factor: number,
  factor: number,
  low_freq_factor: number,
  high_freq_factor: number,
  original_max_position_embeddings: number,
});

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
  rope_scaling: ropeGroup.nullish(),
  rope_parameters: ropeGroup.nullish(),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  tie_word_embeddings: z.boolean().default(false),
  sliding_window: number,
  use_sliding_window: z.boolean().nullish(),
});

const gpt2Schema = z.looseObject({
  vocab_size: size.optional(),
  n_embd: size,
  n_layer: size,
  n_head: size,
  n_inner: size.nullish(),
  n_positions: size.optional(),
  n_ctx: size.optional(),
  activation_function: z.string().default("gelu_new"),
  layer_norm_epsilon: z.number().default(1e-5),
  initializer_range: z.number().default(0.02),
  tie_word_embeddings: z.boolean().default(true),
});
const tanhNames = ["gelu_new", "gelu_fast", "gelu_pytorch_tanh"];

function gpt2Config(json: unknown): MegatronConfig {
  const config = parseConfig(component, gpt2Schema, json);
  const { n_embd: width, n_head: numHeads, activation_function: activation } = config;
  refuse("activation_function", activation, ["gelu", ...tanhNames]);
  return {
    numLayers: config.n_layer,
    width,
    ffnWidth: config.n_inner ?? 4 * width,
    numHeads,
    numKvHeads: numHeads,
    headDim: width / numHeads,
    activation: activation === "gelu" ? "gelu" : "gelu-tanh",
    normalization: "layernorm",
    normEps: config.layer_norm_epsilon,
    hasLinearBias: true,
    hasQkvBias: true,
    tiesEmbeddings: config.tie_word_embeddings,
    positions: "learned_absolute",
    rotaryFraction: 1,
    rotaryBase: 10000,
    maxPositions: config.n_positions ?? config.n_ctx ?? 1024,
    initStd: config.initializer_range,
    vocabSize: config.vocab_size,
  };
}

/** Reads config.json. Throws ConfigError naming the key. */
export function megatronConfig(json: unknown): MegatronConfig {
  const isGpt2 =
    typeof json === "object" && json !== null && "model_type" in json && json.model_type === "gpt2";
  return isGpt2 ? gpt2Config(json) : rotaryModelConfig(json);
}

function rotaryModelConfig(json: unknown): MegatronConfig {
  const config = parseConfig(component, schema, json);
  const { model_type: type, rope_parameters: rope } = config;
  const isNemotron = type === "nemotron";
  refuseWindow(config);
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
    ropeScaling: ropeScaling(config.rope_scaling ?? rope ?? {}),
  };
}

/** A window as long as the positions is none. Mistral has one of 4,096 where the key is missing. */
function refuseWindow(config: z.output<typeof schema>): void {
  const { model_type: type, sliding_window: window = 4096, max_position_embeddings: maxPositions } = config;
  const slides = type === "mistral" || (type === "qwen2" && config.use_sliding_window === true);
  if (slides && window !== null && window < maxPositions) refuse("sliding_window", window, [null]);
}

function ropeScaling(group: z.output<typeof ropeGroup>): MegatronRopeScaling | undefined {
  const kind = group.rope_type ?? group.type ?? "default";
  if (kind === "default") return undefined;
  const factor = group.factor ?? 1;
  if (kind === "linear") return { kind, factor };
  if (kind !== "llama3") refuse("rope_scaling.rope_type", kind, ["default", "linear", "llama3"]);
  const usual = llama31Scaling(factor);
  return {
    ...usual,
    lowFrequencyFactor: group.low_freq_factor ?? usual.lowFrequencyFactor,
    highFrequencyFactor: group.high_freq_factor ?? usual.highFrequencyFactor,
    originalPositions: group.original_max_position_embeddings ?? usual.originalPositions,
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
