/**
 * Configuration of the Llama family: RMSNorm, SwiGLU, whole-head rotary positions. Three dialects of config.json share it: llama (Llama 1
 * to 3.3 and what follows their layout), mistral (a sliding window) and qwen2 (Qwen2 and 2.5: query/key/value biases).
 *
 * Keys and defaults: transformers, src/transformers/models/{llama,mistral,qwen2}/configuration_*.py, with their older spellings.
 */
import { z } from "zod";
import { ConfigError, parseConfig } from "../../base/index.ts";
import { checkDecoderConfig } from "../common/config.ts";
import type { DecoderConfig } from "../common/config.ts";
import {
  activationName,
  firstId,
  headWidth,
  readActivation,
  readRotary,
  rotaryKeys,
  tokenIdKey,
  writeSharedKeys,
  writeRotary,
} from "../common/configKeys.ts";

export type LlamaDialect = "llama" | "mistral" | "qwen2";

/** What a dialect means by a key that is not there. */
interface Defaults {
  vocabSize: number;
  ffnWidth: number;
  maxPositions: number;
  numKvHeads: number | undefined;
  slidingWindow: number | undefined;
  bosId: number | undefined;
  eosId: number | undefined;
}

const defaults: Readonly<Record<LlamaDialect, Defaults>> = {
  llama: {
    vocabSize: 32000,
    ffnWidth: 11008,
    maxPositions: 2048,
    numKvHeads: undefined,
    slidingWindow: undefined,
    bosId: 1,
    eosId: 2,
  },
  mistral: {
    vocabSize: 32000,
    ffnWidth: 14336,
    maxPositions: 131072,
    numKvHeads: 8,
    slidingWindow: 4096,
    bosId: 1,
    eosId: 2,
  },
  qwen2: {
    vocabSize: 151936,
    ffnWidth: 22016,
    maxPositions: 32768,
    numKvHeads: 32,
    slidingWindow: 4096,
    bosId: undefined,
    eosId: undefined,
  },
};

export const architectures: Readonly<Record<LlamaDialect, string>> = {
  llama: "LlamaForCausalLM",
  mistral: "MistralForCausalLM",
  qwen2: "Qwen2ForCausalLM",
};

const schema = z.looseObject({
  vocab_size: z.int().optional(),
  hidden_size: z.int().default(4096),
  intermediate_size: z.int().optional(),
  num_hidden_layers: z.int().default(32),
  num_attention_heads: z.int().default(32),
  num_key_value_heads: z.int().nullish(),
  head_dim: z.int().nullish(),
  hidden_act: z.string().default("silu"),
  max_position_embeddings: z.int().optional(),
  /** Of the first Llama conversions. */
  max_sequence_length: z.int().optional(),
  initializer_range: z.number().default(0.02),
  rms_norm_eps: z.number().default(1e-6),
  ...rotaryKeys,
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  sliding_window: z.int().nullish(),
  use_sliding_window: z.boolean().nullish(),
  max_window_layers: z.int().nullish(),
  layer_types: z.array(z.string()).nullish(),
  tie_word_embeddings: z.boolean().default(false),
  bos_token_id: tokenIdKey,
  eos_token_id: tokenIdKey,
  pad_token_id: tokenIdKey,
});
type Keys = z.output<typeof schema>;

/** Reads config.json of a dialect. Throws ConfigError. */
export function readLlamaConfig(dialect: LlamaDialect, json: unknown): DecoderConfig {
  const config = parseConfig("config.json", schema, json);
  const missing = defaults[dialect];
  const numHeads = config.num_attention_heads;
  const headDim = headWidth(config.head_dim, config.hidden_size, numHeads);
  const declared = config.max_position_embeddings ?? config.max_sequence_length ?? missing.maxPositions;
  const context = { headDim, maxPositions: declared, defaultFraction: 1, model: dialect };
  return checkDecoderConfig({
    ...llamaTraits(dialect),
    vocabSize: config.vocab_size ?? missing.vocabSize,
    width: config.hidden_size,
    ffnWidth: config.intermediate_size ?? missing.ffnWidth,
    numLayers: config.num_hidden_layers,
    numHeads,
    numKvHeads: keyValueHeads(config, missing),
    headDim,
    ...usablePositions(declared, slidingWindow(dialect, config)),
    norm: { ...llamaTraits(dialect).norm, eps: config.rms_norm_eps },
    activation: readActivation("hidden_act", config.hidden_act, dialect),
    biases: biases(dialect, config),
    rotary: readRotary(config, context),
    tiesEmbeddings: config.tie_word_embeddings,
    initStd: config.initializer_range,
    bosId: firstId(config.bos_token_id, missing.bosId),
    eosId: firstId(config.eos_token_id, missing.eosId),
    padId: firstId(config.pad_token_id, undefined),
  });
}

/** An explicit null means as many as there are heads. */
function keyValueHeads(
  { num_key_value_heads: given, num_attention_heads: numHeads }: Keys,
  missing: Defaults,
): number {
  return given ?? (given === undefined ? missing.numKvHeads : undefined) ?? numHeads;
}

function biases(dialect: LlamaDialect, config: Keys): DecoderConfig["biases"] {
  if (dialect === "qwen2") return { qkv: true, output: false, mlp: false };
  const [attention, mlp] = [config.attention_bias ?? false, config.mlp_bias ?? false];
  if (dialect === "mistral" && (attention || mlp)) {
    throw new ConfigError(
      "config.json",
      `${attention ? "attention_bias" : "mlp_bias"}: expected false for a mistral model, got true`,
    );
  }
  return { qkv: attention, output: attention, mlp };
}

/** Keys that any layer looks back to at most; undefined for all of them. */
function slidingWindow(dialect: LlamaDialect, config: Keys): number | undefined {
  const window =
    config.sliding_window === undefined
      ? defaults[dialect].slidingWindow
      : (config.sliding_window ?? undefined);
  if (config.layer_types != null && dialect !== "mistral") {
    const slides = config.layer_types.some((kind) => kind === "sliding_attention");
    const other = config.layer_types.find(
      (kind) => kind !== "sliding_attention" && kind !== "full_attention",
    );
    if (other !== undefined) {
      throw new ConfigError(
        "config.json",
        `layer_types: expected full_attention or sliding_attention, got ${other}`,
      );
    }
    return slides ? window : undefined;
  }
  if (dialect === "llama") return undefined;
  if (dialect === "mistral") return window;
  // Qwen2's first max_window_layers layers attend to everything.
  const slides =
    config.use_sliding_window === true && (config.max_window_layers ?? 28) < config.num_hidden_layers;
  return slides ? window : undefined;
}

/** Up to the window's length a sliding window is plain attention; beyond it we do not go. */
function usablePositions(
  declared: number,
  window: number | undefined,
): Pick<DecoderConfig, "maxPositions" | "positionLimit"> {
  if (window === undefined || window >= declared) return { maxPositions: declared };
  return {
    maxPositions: window,
    positionLimit: `its sliding window is ${window} tokens; of ${declared} positions those are exact`,
  };
}

/** Writes config.json, which all versions of transformers read. */
export function writeLlamaConfig(config: DecoderConfig, dtype: string): Record<string, unknown> {
  const dialect = dialectOf(config);
  return {
    architectures: [architectures[dialect]],
    model_type: dialect,
    vocab_size: config.vocabSize,
    hidden_size: config.width,
    intermediate_size: config.ffnWidth,
    num_hidden_layers: config.numLayers,
    num_attention_heads: config.numHeads,
    num_key_value_heads: config.numKvHeads,
    head_dim: config.headDim,
    hidden_act: activationName(config.activation),
    max_position_embeddings: config.maxPositions,
    initializer_range: config.initStd,
    rms_norm_eps: config.norm.eps,
    ...(config.rotary && writeRotary(config.rotary)),
    ...(dialect === "llama"
      ? { attention_bias: config.biases.qkv, mlp_bias: config.biases.mlp }
      : { sliding_window: null }),
    ...(dialect === "qwen2" ? { use_sliding_window: false } : {}),
    attention_dropout: 0,
    ...writeSharedKeys(config, dtype),
  };
}

function dialectOf({ family }: DecoderConfig): LlamaDialect {
  return family === "mistral" || family === "qwen2" ? family : "llama";
}

/** What all models of a dialect have in common. */
export function llamaTraits(dialect: LlamaDialect) {
  return {
    family: dialect,
    norm: { kind: "rms-norm", eps: 1e-6, gainOffset: 0, hasBias: false },
    activation: "silu",
    isGated: true,
    biases: { qkv: dialect === "qwen2", output: false, mlp: false },
    hasLearnedPositions: false,
    tiesEmbeddings: false,
    initStd: 0.02,
    bosId: defaults[dialect].bosId,
    eosId: defaults[dialect].eosId,
    padId: undefined,
  } as const;
}
