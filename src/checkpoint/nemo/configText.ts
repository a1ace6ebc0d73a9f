/** The text of NeMo 1's `model_config.yaml`. Source of the keys: NeMo v2.0.0, megatron_gpt_config.yaml. */
import { stringify as stringifyYaml } from "yaml";
import { ConfigError } from "../../base/index.ts";
import { llama31Scaling } from "../megatron/config.ts";
import type { MegatronConfig, MegatronRopeScaling } from "../megatron/config.ts";

/** Writes `model_config.yaml` of NeMo 1 with the keys its readers need; `tokenizerFile` and `otherFiles` are the archive's members. */
export function nemo1ConfigText(
  config: MegatronConfig,
  {
    precision,
    tokenizerFile,
    otherFiles = [],
  }: { precision: string; tokenizerFile: string | undefined; otherFiles?: readonly string[] },
): string {
  const fields = {
    mcore_gpt: true,
    megatron_amp_O2: precision === "bf16",
    micro_batch_size: 1,
    global_batch_size: 1,
    tensor_model_parallel_size: 1,
    pipeline_model_parallel_size: 1,
    virtual_pipeline_model_parallel_size: null,
    encoder_seq_length: config.maxPositions,
    max_position_embeddings: config.maxPositions,
    ...scalingFields(config.ropeScaling),
    num_layers: config.numLayers,
    hidden_size: config.width,
    ffn_hidden_size: config.ffnWidth,
    num_attention_heads: config.numHeads,
    num_query_groups: config.numKvHeads,
    kv_channels: config.headDim,
    init_method_std: config.initStd,
    use_scaled_init_method: true,
    hidden_dropout: 0,
    attention_dropout: 0,
    ffn_dropout: 0,
    apply_query_key_layer_scaling: false,
    normalization: config.normalization,
    layernorm_epsilon: config.normEps,
    do_layer_norm_weight_decay: false,
    make_vocab_size_divisible_by: 128,
    // NeMo pads the vocabulary to a multiple unless this says how many rows there are.
    ...(config.vocabSize === undefined ? {} : { override_vocab_size: config.vocabSize }),
    pre_process: true,
    post_process: true,
    bias: config.hasLinearBias,
    ...(config.hasQkvBias && !config.hasLinearBias ? { qkv_bias: true } : {}),
    activation: config.activation === "gelu-tanh" ? "gelu" : config.activation,
    ...(config.activation.startsWith("gelu")
      ? { bias_activation_fusion: config.activation === "gelu-tanh" }
      : {}),
    transformer_block_type: "pre_ln",
    normalize_attention_scores: true,
    position_embedding_type: config.positions,
    rotary_percentage: config.rotaryFraction,
    rotary_base: config.rotaryBase,
    share_embeddings_and_output_weights: config.tiesEmbeddings,
    attention_type: "multihead",
    tokenizer: {
      library: tokenizerFile === undefined ? "huggingface" : "sentencepiece",
      type: null,
      model: tokenizerFile === undefined ? null : `nemo:${tokenizerFile}`,
      vocab_file: null,
      merge_file: null,
      sentencepiece_legacy: false,
      ...(otherFiles.length === 0 ? {} : { nautilus_files: otherFiles.map((file) => `nemo:${file}`) }),
    },
    precision,
    target: "nemo.collections.nlp.models.language_modeling.megatron_gpt_model.MegatronGPTModel",
    nemo_version: "1.22.0",
  };
  return stringifyYaml(fields);
}

/** NeMo 1 has a number for positions divided, and a switch for Llama 3.1's frequencies, whose parameters are in its code. */
function scalingFields(scaling: MegatronRopeScaling | undefined): Record<string, unknown> {
  if (scaling === undefined) return {};
  if (scaling.kind === "linear") return { seq_len_interpolation_factor: scaling.factor };
  const expected = llama31Scaling(8);
  for (const key of ["factor", "lowFrequencyFactor", "highFrequencyFactor", "originalPositions"] as const) {
    if (scaling[key] === expected[key]) continue;
    throw new ConfigError("nemo", `rope_scaling: expected ${key} ${expected[key]}, got ${scaling[key]}`, {
      hint: "NeMo's files can say Llama 3.1's scaling only; keep the Hugging Face folder",
    });
  }
  return { scale_positional_embedding: true };
}
