/**
 * The shape of a Megatron GPT model, whatever file told it, and Hugging Face's config.json of the families it maps to: Nemotron
 * (layernorm1p, squared ReLU) and Llama (RMSNorm, SwiGLU; Qwen2 with query/key/value biases). Anything else is refused by name.
 */
import { ConfigError } from "../../base/index.ts";

export interface MegatronConfig {
  readonly numLayers: number;
  readonly width: number;
  readonly ffnWidth: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** NeMo's spelling: "squared-relu", "fast-swiglu", "gelu", … */
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
export function huggingFaceFamily(config: MegatronConfig): "nemotron" | "llama" | "qwen2" {
  const { activation, normalization, positions } = config;
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
