/**
 * Model descriptions of NeMo and Megatron-LM: `model_config.yaml` of NeMo 1, `context/model.yaml` of NeMo 2, and the arguments a
 * Megatron-LM checkpoint carries, all read to one MegatronConfig. What no family of ours computes is refused by its key.
 * Sources: NeMo v2.0.0 megatron_base_model.py and megatron_gpt_config.yaml; NeMo 2 llm/gpt/model; Megatron-LM training/arguments.py.
 */
import { parse as parseYaml } from "yaml";
import { z } from "zod";
import { ConfigError, messageOf, parseConfig } from "../../base/index.ts";
import { llama31Scaling } from "../megatron/config.ts";
import type { MegatronConfig, MegatronRopeScaling } from "../megatron/config.ts";

/** The tokenizer that a description names. */
export interface TokenizerReference {
  /** "sentencepiece", "huggingface", "megatron", …; undefined when the file does not say. */
  readonly library: string | undefined;
  /** Files of the archive or folder, as the description spells them. */
  readonly files: readonly string[];
}

export interface NemoDescription {
  readonly config: MegatronConfig;
  readonly tokenizer: TokenizerReference;
}

const size = z.int().positive();
const flag = z.boolean().nullish();
const number = z.number().nullish();

/** Keys before and after a token that it attends to; as text in the arguments of Megatron-LM. */
const windowSize = z.union([z.array(z.number()), z.string()]).nullish();

const tokenizerSchema = z.looseObject({
  library: z.string().nullish(),
  model: z.string().nullish(),
  vocab_file: z.string().nullish(),
  merge_file: z.string().nullish(),
  // Of files that Nautilus writes: a tokenizer that is not one SentencePiece model.
  nautilus_files: z.array(z.string()).nullish(),
});

const nemo1Schema = z.looseObject({
  num_layers: size,
  hidden_size: size,
  ffn_hidden_size: size.nullish(),
  num_attention_heads: size,
  num_query_groups: size.nullish(),
  kv_channels: size.nullish(),
  activation: z.string().default("gelu"),
  bias_activation_fusion: flag,
  bias_gelu_fusion: flag,
  normalization: z.string().default("layernorm"),
  layernorm_zero_centered_gamma: flag,
  layernorm_epsilon: z.number().default(1e-5),
  bias: z.boolean().default(true),
  qkv_bias: flag,
  share_embeddings_and_output_weights: z.boolean().default(true),
  position_embedding_type: z.string().default("learned_absolute"),
  rotary_percentage: z.number().default(1),
  rotary_base: number,
  max_position_embeddings: size.nullish(),
  encoder_seq_length: size.nullish(),
  init_method_std: z.number().default(0.02),
  override_vocab_size: size.nullish(),
  transformer_block_type: z.string().default("pre_ln"),
  normalize_attention_scores: z.boolean().default(true),
  num_moe_experts: number,
  seq_len_interpolation_factor: number,
  scale_positional_embedding: flag,
  window_size: windowSize,
  tokenizer: tokenizerSchema.nullish(),
});

/** Reads YAML. Throws ConfigError. */
export function yamlObject(component: string, text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = parseYaml(text, { maxAliasCount: 1000 });
  } catch (error) {
    throw new ConfigError(component, `expected YAML, got ${messageOf(error).split("\n")[0]}`);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  throw new ConfigError(
    component,
    `expected keys and values, got ${Array.isArray(value) ? "a list" : typeof value}`,
  );
}

/** NeMo's files keep references such as `${.encoder_seq_length}` to other keys of the model section. */
function resolveReferences(model: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const resolve = (value: unknown, depth: number): unknown => {
    const key = typeof value === "string" ? /^\$\{(?:\.|model\.|cfg\.)?(\w+)\}$/.exec(value)?.[1] : undefined;
    return key === undefined || depth > 4 ? value : resolve(model[key], depth + 1);
  };
  return Object.fromEntries(Object.entries(model).map(([key, value]) => [key, resolve(value, 0)]));
}

function refuse(
  component: string,
  key: string,
  { got, allowed }: { got: unknown; allowed: readonly unknown[] },
): void {
  if (got === null || got === undefined || allowed.includes(got)) return;
  throw new ConfigError(
    component,
    `${key}: expected ${allowed.length === 0 ? "none" : allowed.map(String).join(" or ")}, got ${JSON.stringify(got)}`,
    {
      hint: "Nautilus has no model family with it",
      fields: { key, got },
    },
  );
}

/** Reads `model_config.yaml`. Throws ConfigError naming the key. */
export function readNemo1Config(text: string): NemoDescription {
  const component = "model_config.yaml";
  const top = yamlObject(component, text);
  const model = typeof top["model"] === "object" && top["model"] !== null ? { ...top["model"] } : top;
  const config = parseConfig(component, nemo1Schema, resolveReferences(model));
  refuse(component, "transformer_block_type", { got: config.transformer_block_type, allowed: ["pre_ln"] });
  refuse(component, "normalize_attention_scores", {
    got: config.normalize_attention_scores,
    allowed: [true],
  });
  refuse(component, "num_moe_experts", { got: config.num_moe_experts, allowed: [1] });
  refuse(component, "window_size", { got: config.window_size, allowed: [] });
  const normalization = config.normalization.toLowerCase();
  const tokenizer = config.tokenizer ?? {};
  return {
    config: {
      numLayers: config.num_layers,
      ...widths(component, config),
      activation: geluName(
        config.activation,
        (config.bias_activation_fusion ?? config.bias_gelu_fusion ?? true) && config.bias,
      ),
      normalization:
        normalization === "layernorm" && config.layernorm_zero_centered_gamma ? "layernorm1p" : normalization,
      normEps: config.layernorm_epsilon,
      hasLinearBias: config.bias,
      hasQkvBias: config.bias || config.qkv_bias === true,
      tiesEmbeddings: config.share_embeddings_and_output_weights,
      positions: config.position_embedding_type,
      rotaryFraction: config.rotary_percentage,
      rotaryBase: config.rotary_base ?? 10000,
      maxPositions:
        config.max_position_embeddings ??
        config.encoder_seq_length ??
        missing(component, "max_position_embeddings"),
      initStd: config.init_method_std,
      vocabSize: config.override_vocab_size ?? undefined,
      ropeScaling:
        linearScaling(config.seq_len_interpolation_factor) ??
        (config.scale_positional_embedding === true ? llama31Scaling(8) : undefined),
    },
    tokenizer: {
      library: tokenizer.library ?? undefined,
      files: [
        tokenizer.model,
        tokenizer.vocab_file,
        tokenizer.merge_file,
        ...(tokenizer.nautilus_files ?? []),
      ].flatMap((file) => (file == null || file === "" ? [] : [file.replace(/^nemo:/, "")])),
    },
  };
}

/** The fused kernel of bias and GELU takes the tanh form, all others the exact one (megatron/core/fusions/fused_bias_gelu.py). */
function geluName(activation: string, isFused: boolean): string {
  if (activation === "gelu") return isFused ? "gelu-tanh" : "gelu";
  return activation === "approx-gelu" || activation === "openai-gelu" ? "gelu-tanh" : activation;
}

function missing(component: string, key: string): never {
  throw new ConfigError(component, `${key}: expected a number, got nothing`, { fields: { key } });
}

interface RawWidths {
  hidden_size: number;
  ffn_hidden_size?: number | null | undefined;
  num_attention_heads: number;
  num_query_groups?: number | null | undefined;
  kv_channels?: number | null | undefined;
}

function widths(
  component: string,
  { hidden_size: width, num_attention_heads: numHeads, ...raw }: RawWidths,
): Pick<MegatronConfig, "width" | "ffnWidth" | "numHeads" | "numKvHeads" | "headDim"> {
  const headDim = raw.kv_channels ?? width / numHeads;
  const numKvHeads = raw.num_query_groups ?? numHeads;
  if (!Number.isInteger(headDim) || numHeads % numKvHeads !== 0) {
    throw new ConfigError(
      component,
      `expected heads that divide hidden_size and groups that divide heads, got hidden_size ${width}, ${numHeads} heads, ${numKvHeads} groups`,
    );
  }
  return { width, ffnWidth: raw.ffn_hidden_size ?? 4 * width, numHeads, numKvHeads, headDim };
}

/** A function or class of Python by its dotted name, as fiddle writes it. */
const pythonName = z.union([
  z.string(),
  z.looseObject({ _target_: z.string() }).transform((value) => value._target_),
]);

const megatronSchema = z.looseObject({
  num_layers: size,
  hidden_size: size,
  ffn_hidden_size: size.nullish(),
  num_attention_heads: size,
  num_query_groups: size.nullish(),
  kv_channels: size.nullish(),
  activation_func: pythonName.nullish(),
  bias_activation_fusion: flag,
  gated_linear_unit: flag,
  normalization: z.string().default("LayerNorm"),
  layernorm_zero_centered_gamma: flag,
  layernorm_epsilon: z.number().default(1e-5),
  add_bias_linear: z.boolean().default(true),
  add_qkv_bias: flag,
  share_embeddings_and_output_weights: z.boolean().default(true),
  position_embedding_type: z.string().default("learned_absolute"),
  rotary_percent: z.number().default(1),
  rotary_base: number,
  seq_length: size.nullish(),
  init_method_std: z.number().default(0.02),
  num_moe_experts: number,
  seq_len_interpolation_factor: number,
  scale_factor: number,
  low_freq_factor: number,
  high_freq_factor: number,
  old_context_len: number,
  qk_layernorm: flag,
  window_size: windowSize,
});
const nemo2Schema = z.looseObject({
  config: megatronSchema,
  tokenizer: z
    .looseObject({
      _target_: z.string().nullish(),
      model_path: z.string().nullish(),
      pretrained_model_name: z.string().nullish(),
    })
    .nullish(),
});

/** Reads `context/model.yaml`. Throws ConfigError naming the key. */
export function readNemo2Config(text: string): NemoDescription {
  const component = "context/model.yaml";
  const { config, tokenizer } = parseConfig(component, nemo2Schema, yamlObject(component, text));
  return {
    config: fromMegatronCore(component, config),
    tokenizer: {
      library: /sentencepiece/i.test(tokenizer?._target_ ?? "")
        ? "sentencepiece"
        : tokenizer == null
          ? undefined
          : "huggingface",
      files: [tokenizer?.model_path, tokenizer?.pretrained_model_name].flatMap((file) =>
        file == null ? [] : [file],
      ),
    },
  };
}

function fromMegatronCore(component: string, config: z.output<typeof megatronSchema>): MegatronConfig {
  refuse(component, "config.num_moe_experts", { got: config.num_moe_experts, allowed: [1] });
  refuse(component, "config.window_size", { got: config.window_size, allowed: [] });
  refuse(component, "config.qk_layernorm", { got: config.qk_layernorm, allowed: [false] });
  return {
    numLayers: config.num_layers,
    ...widths(component, config),
    activation: geluName(
      activationName(config),
      config.bias_activation_fusion === true && config.add_bias_linear,
    ),
    normalization: normalizationName(config.normalization, config.layernorm_zero_centered_gamma === true),
    normEps: config.layernorm_epsilon,
    hasLinearBias: config.add_bias_linear,
    hasQkvBias: config.add_bias_linear || config.add_qkv_bias === true,
    tiesEmbeddings: config.share_embeddings_and_output_weights,
    positions: config.position_embedding_type,
    rotaryFraction: config.rotary_percent,
    rotaryBase: config.rotary_base ?? 10000,
    maxPositions: config.seq_length ?? missing(component, "config.seq_length"),
    initStd: config.init_method_std,
    ropeScaling: linearScaling(config.seq_len_interpolation_factor) ?? nemo2Scaling(config),
  };
}

/** Llama 3.1 and later (NeMo 2, llm/gpt/model/llama.py, Llama31Config). */
function nemo2Scaling(config: z.output<typeof megatronSchema>): MegatronRopeScaling | undefined {
  const factor = config.scale_factor ?? 1;
  if (factor === 1) return undefined;
  const usual = llama31Scaling(factor);
  return {
    ...usual,
    lowFrequencyFactor: config.low_freq_factor ?? usual.lowFrequencyFactor,
    highFrequencyFactor: config.high_freq_factor ?? usual.highFrequencyFactor,
    originalPositions: config.old_context_len ?? usual.originalPositions,
  };
}

/** Positions divided by a factor; none or 1 is no scaling. */
function linearScaling(factor: number | null | undefined): MegatronRopeScaling | undefined {
  return factor == null || factor === 1 ? undefined : { kind: "linear", factor };
}

function activationName({
  activation_func: activation,
  gated_linear_unit: isGated,
}: Pick<z.output<typeof megatronSchema>, "activation_func" | "gated_linear_unit">): string {
  const name = (activation ?? "gelu").split(".").at(-1) ?? "gelu";
  if (isGated === true) return name === "silu" ? "fast-swiglu" : `gated ${name}`;
  return name === "squared_relu" ? "squared-relu" : name;
}

function normalizationName(normalization: string, isZeroCentered: boolean): string {
  const name = normalization.toLowerCase();
  return isZeroCentered ? `${name}1p` : name;
}

const argumentsSchema = z.looseObject({
  num_layers: size,
  hidden_size: size,
  ffn_hidden_size: size.nullish(),
  num_attention_heads: size,
  group_query_attention: flag,
  num_query_groups: size.nullish(),
  kv_channels: size.nullish(),
  squared_relu: flag,
  swiglu: flag,
  openai_gelu: flag,
  bias_gelu_fusion: flag,
  apply_layernorm_1p: flag,
  normalization: z.string().default("LayerNorm"),
  layernorm_epsilon: number,
  norm_epsilon: number,
  add_bias_linear: z.boolean().default(true),
  add_qkv_bias: flag,
  untie_embeddings_and_output_weights: z.boolean().default(false),
  position_embedding_type: z.string().default("learned_absolute"),
  rotary_percent: z.number().default(1),
  rotary_base: number,
  max_position_embeddings: size,
  init_method_std: z.number().default(0.02),
  num_experts: number,
  use_rope_scaling: flag,
  rope_scaling_factor: number,
  rotary_seq_len_interpolation_factor: number,
  qk_layernorm: flag,
  window_size: windowSize,
});

/** Reads the arguments of a Megatron-LM run (`args` of its checkpoint). Throws ConfigError naming the argument. */
export function readMegatronArguments(args: Readonly<Record<string, unknown>>): MegatronConfig {
  const component = "args";
  const config = parseConfig(component, argumentsSchema, args);
  refuse(component, "num_experts", { got: config.num_experts, allowed: [1] });
  refuse(component, "window_size", { got: config.window_size, allowed: [] });
  refuse(component, "qk_layernorm", { got: config.qk_layernorm, allowed: [false] });
  const groups = config.group_query_attention === true ? config.num_query_groups : null;
  return {
    numLayers: config.num_layers,
    ...widths(component, { ...config, num_query_groups: groups }),
    activation:
      config.swiglu === true
        ? "fast-swiglu"
        : config.squared_relu === true
          ? "squared-relu"
          : geluName(config.openai_gelu === true ? "openai-gelu" : "gelu", config.bias_gelu_fusion ?? true),
    normalization: normalizationName(config.normalization, config.apply_layernorm_1p === true),
    normEps: config.norm_epsilon ?? config.layernorm_epsilon ?? 1e-5,
    hasLinearBias: config.add_bias_linear,
    hasQkvBias: config.add_bias_linear || config.add_qkv_bias === true,
    tiesEmbeddings: !config.untie_embeddings_and_output_weights,
    positions: config.position_embedding_type,
    rotaryFraction: config.rotary_percent,
    rotaryBase: config.rotary_base ?? 10000,
    maxPositions: config.max_position_embeddings,
    initStd: config.init_method_std,
    ropeScaling:
      linearScaling(config.rotary_seq_len_interpolation_factor) ??
      (config.use_rope_scaling === true ? llama31Scaling(config.rope_scaling_factor ?? 8) : undefined),
  };
}
