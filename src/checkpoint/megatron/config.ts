/**
 * The shape of a Megatron GPT model, whatever file told it, and Hugging Face's config.json of the families it maps to: Nemotron
 * (layernorm1p, squared ReLU) and Llama (RMSNorm, SwiGLU; Qwen2 with query/key/value biases). Anything else is refused by name.
 */
import { ConfigError } from "../../base/index.ts";

/** Positions divided by a factor, or Llama 3.1's division of low frequencies. */
export type MegatronRopeScaling =
  | { readonly kind: "linear"; readonly factor: number }
  | {
      readonly kind: "llama3";
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalPositions: number;
    };

/** With the parameters that are in Megatron's code (core/models/common/embeddings/rotary_pos_embedding.py). */
export function llama31Scaling(factor: number): Extract<MegatronRopeScaling, { kind: "llama3" }> {
  return { kind: "llama3", factor, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalPositions: 8192 };
}

export interface MegatronConfig {
  readonly numLayers: number;
  readonly width: number;
  readonly ffnWidth: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** NeMo's spelling: "squared-relu", "fast-swiglu", "gelu", …; "gelu-tanh" where its fused kernel takes the approximation. */
  readonly activation: string;
  /** NeMo's spelling: "layernorm1p", "layernorm", "rmsnorm". */
  readonly normalization: string;
  readonly normEps: number;
  readonly hasLinearBias: boolean;
  readonly hasQkvBias: boolean;
  readonly tiesEmbeddings: boolean;
  /** "rope", "learned_absolute", … */
  readonly positions: string;
  readonly rotaryFraction: number;
  readonly rotaryBase: number;
  /** How rotary positions are stretched; undefined for not at all. */
  readonly ropeScaling?: MegatronRopeScaling | undefined;
  readonly maxPositions: number;
  readonly initStd: number;
  /** V, where the file says it; rows after it are padding. */
  readonly vocabSize?: number | undefined;
}

const gatedActivations = ["swiglu", "fast-swiglu"];

/** Whether the first matrix of the MLP holds gate rows above up rows. */
export function isGatedActivation(activation: string): boolean {
  return gatedActivations.includes(activation);
}

/** The Hugging Face family of a model. Throws ConfigError naming what no family has. */
export function huggingFaceFamily(config: MegatronConfig): "nemotron" | "llama" | "qwen2" | "gpt2" {
  const { activation, normalization, positions } = config;
  if (positions === "learned_absolute") return expectGpt2(config);
  if (positions !== "rope") throw unsupported("position_embedding_type", positions, "rope");
  if (normalization === "layernorm1p") {
    if (activation !== "squared-relu") throw unsupported("activation", activation, "squared-relu");
    if (config.hasQkvBias !== config.hasLinearBias) throw unsupported("add_qkv_bias", "true", "false");
    return "nemotron";
  }
  if (normalization !== "rmsnorm")
    throw unsupported("normalization", normalization, "layernorm1p or rmsnorm");
  if (!isGatedActivation(activation)) throw unsupported("activation", activation, "fast-swiglu");
  if (config.hasLinearBias) throw unsupported("bias", "true", "false");
  if (config.rotaryFraction !== 1) throw unsupported("rotary_percentage", String(config.rotaryFraction), "1");
  return config.hasQkvBias ? "qwen2" : "llama";
}

/** Learned positions: GPT-2, whose files know biases everywhere and heads that share the width. */
function expectGpt2(config: MegatronConfig): "gpt2" {
  const { activation, normalization, numHeads, numKvHeads, headDim, width } = config;
  if (normalization !== "layernorm")
    throw unsupported("normalization", normalization, "layernorm with learned positions");
  if (activation !== "gelu" && activation !== "gelu-tanh")
    throw unsupported("activation", activation, "gelu with learned positions");
  if (!config.hasLinearBias) throw unsupported("bias", "false", "true with learned positions");
  if (numKvHeads !== numHeads)
    throw unsupported("num_query_groups", String(numKvHeads), `${numHeads} with learned positions`);
  if (headDim * numHeads !== width)
    throw unsupported("kv_channels", String(headDim), `${width / numHeads} with learned positions`);
  return "gpt2";
}

function unsupported(key: string, got: string, expected: string): ConfigError {
  return new ConfigError("megatron", `${key}: expected ${expected}, got ${got}`, {
    hint: "Nautilus has no model family with it",
    fields: { key, got },
  });
}

/**
 * config.json as Hugging Face would have it. `dtype` is torch's name of the weights' dtype; token ids follow the family's usage and are
 * the tokenizer's to correct. Throws ConfigError.
 */
export function huggingFaceConfig(
  config: MegatronConfig,
  { vocabSize, dtype }: { vocabSize: number; dtype: string },
): Record<string, unknown> {
  const family = huggingFaceFamily(config);
  if (family === "gpt2") return gpt2Config(config, { vocabSize, dtype });
  const shared = {
    vocab_size: vocabSize,
    hidden_size: config.width,
    intermediate_size: config.ffnWidth,
    num_hidden_layers: config.numLayers,
    num_attention_heads: config.numHeads,
    num_key_value_heads: config.numKvHeads,
    head_dim: config.headDim,
    max_position_embeddings: config.maxPositions,
    initializer_range: config.initStd,
    rope_theta: config.rotaryBase,
    ...(config.ropeScaling === undefined ? {} : { rope_scaling: scalingKeys(config.ropeScaling) }),
    tie_word_embeddings: config.tiesEmbeddings,
    use_cache: true,
    torch_dtype: dtype,
  };
  if (family === "nemotron") {
    return {
      architectures: ["NemotronForCausalLM"],
      model_type: "nemotron",
      ...shared,
      hidden_act: "relu2",
      norm_eps: config.normEps,
      partial_rotary_factor: config.rotaryFraction,
      attention_bias: config.hasLinearBias,
      mlp_bias: config.hasLinearBias,
      bos_token_id: 2,
      eos_token_id: 3,
    };
  }
  return {
    architectures: [family === "llama" ? "LlamaForCausalLM" : "Qwen2ForCausalLM"],
    model_type: family,
    ...shared,
    hidden_act: "silu",
    rms_norm_eps: config.normEps,
    ...(family === "llama" ? { attention_bias: false, mlp_bias: false } : {}),
  };
}

function gpt2Config(
  config: MegatronConfig,
  { vocabSize, dtype }: { vocabSize: number; dtype: string },
): Record<string, unknown> {
  return {
    architectures: ["GPT2LMHeadModel"],
    model_type: "gpt2",
    vocab_size: vocabSize,
    n_positions: config.maxPositions,
    n_ctx: config.maxPositions,
    n_embd: config.width,
    n_layer: config.numLayers,
    n_head: config.numHeads,
    n_inner: config.ffnWidth,
    activation_function: config.activation === "gelu-tanh" ? "gelu_new" : "gelu",
    layer_norm_epsilon: config.normEps,
    initializer_range: config.initStd,
    tie_word_embeddings: config.tiesEmbeddings,
    use_cache: true,
    torch_dtype: dtype,
  };
}

function scalingKeys(scaling: MegatronRopeScaling): Record<string, unknown> {
  const { kind, factor } = scaling;
  if (kind === "linear") return { type: kind, factor };
  return {
    rope_type: kind,
    factor,
    low_freq_factor: scaling.lowFrequencyFactor,
    high_freq_factor: scaling.highFrequencyFactor,
    original_max_position_embeddings: scaling.originalPositions,
  };
}
