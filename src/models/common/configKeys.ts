/**
 * What the families' config.json have in common: token ids, rotary positions in the spellings of all versions of transformers, and
 * refusals by name. Sources: transformers, src/transformers/modeling_rope_utils.py and configuration_utils.py.
 */
import { z } from "zod";
import { ConfigError, InvariantError } from "../../base/index.ts";
import type { Activation } from "../../tensor/index.ts";
import type { DecoderConfig } from "./config.ts";
import { yarnAmplitude } from "./rotary.ts";
import type { RotaryConfig, RotaryScaling } from "./rotary.ts";

const component = "config.json";

/** A token id, or several of which the first counts here (generation_config.json has them all). */
export const tokenIdKey = z.union([z.int(), z.array(z.int()).nonempty()]).nullish();

/** `missing` where the key is absent; null says that there is none. */
export function firstId(value: z.output<typeof tokenIdKey>, missing: number | undefined): number | undefined {
  if (value === undefined) return missing;
  return value === null || typeof value === "number" ? (value ?? undefined) : value[0];
}

/** The keys that every family's config.json ends with, the dtype in its older and its newer spelling. */
export function writeSharedKeys(config: DecoderConfig, dtype: string): Record<string, unknown> {
  return {
    tie_word_embeddings: config.tiesEmbeddings,
    use_cache: true,
    bos_token_id: config.bosId ?? null,
    eos_token_id: config.eosId ?? null,
    pad_token_id: config.padId ?? null,
    torch_dtype: dtype,
    dtype,
  };
}

/** transformers' names of the activations (src/transformers/activations.py) that are one of ours. */
const activationNames: ReadonlyMap<string, Activation> = new Map<string, Activation>([
  ["silu", "silu"],
  ["swish", "silu"],
  ["gelu", "gelu-erf"],
  ["gelu_python", "gelu-erf"],
  ["gelu_new", "gelu-tanh"],
  ["gelu_fast", "gelu-tanh"],
  ["gelu_pytorch_tanh", "gelu-tanh"],
  ["gelu_python_tanh", "gelu-tanh"],
  ["relu", "relu"],
  ["relu2", "squared-relu"],
]);

/** Reads the name of an activation. Throws ConfigError naming the key. */
export function readActivation(key: string, name: string, model: string): Activation {
  const known = activationNames.get(name);
  if (known !== undefined) return known;
  throw new ConfigError(
    component,
    `${key}: expected ${[...activationNames.keys()].join(", ")} for a ${model} model, got ${name}`,
    { fields: { key } },
  );
}

/** transformers' name of an activation. */
export function activationName(activation: Activation): string {
  if (activation === "gelu-tanh") return "gelu_pytorch_tanh";
  for (const [name, known] of activationNames) if (known === activation) return name;
  throw new InvariantError(`activation ${activation} has a name`);
}

/**
 * Features of other models that some configurations of these model types carry, and the values that turn them off. Nothing that changes
 * the computation is passed over in silence.
 */
const foreignFeatures: Readonly<Record<string, readonly unknown[]>> = {
  quantization_config: [],
  final_logit_softcapping: [],
  attn_logit_softcapping: [],
  query_pre_attn_scalar: [],
  logit_scale: [1],
  logits_scaling: [1],
  embedding_multiplier: [1],
  residual_multiplier: [1],
  attention_multiplier: [],
  scale_emb: [1],
  scale_depth: [1],
  clip_qkv: [],
  use_qk_norm: [],
  qk_layernorm: [],
  num_experts: [0, 1],
  num_local_experts: [0, 1],
  n_routed_experts: [0, 1],
  kv_lora_rank: [],
  attention_chunk_size: [],
  no_rope_layers: [],
  no_rope_layer_interval: [],
  alibi: [],
  parallel_attn: [],
  use_parallel_residual: [],
  add_cross_attention: [],
  is_encoder_decoder: [],
};

/** Throws ConfigError naming a feature that no family of ours computes. */
export function refuseForeignFeatures(json: unknown): void {
  if (typeof json !== "object" || json === null) return;
  for (const [key, value] of Object.entries(json)) {
    const off = Object.hasOwn(foreignFeatures, key) ? foreignFeatures[key] : undefined;
    if (off === undefined || value === null || value === false || off.includes(value)) continue;
    throw new ConfigError(
      component,
      `${key}: expected a model without it, got ${JSON.stringify(value).slice(0, 60)}`,
      {
        hint:
          key === "quantization_config"
            ? "load the checkpoint that it was quantised from"
            : "no model family of Nautilus computes it",
        fields: { key },
      },
    );
  }
}

/** Throws ConfigError unless `value` is one of `supported`. */
export function refuseOthers(
  key: string,
  value: unknown,
  { supported, model }: { supported: readonly unknown[]; model: string },
): void {
  if (supported.includes(value)) return;
  const shown = (one: unknown): string => (typeof one === "string" ? one : JSON.stringify(one));
  throw new ConfigError(
    component,
    `${key}: expected ${supported.map(shown).join(" or ")} for a ${model} model, got ${shown(value)}`,
    { fields: { key } },
  );
}

/** Head width by its own key, or the model's width shared out. Throws ConfigError when that is not whole. */
export function headWidth(given: number | null | undefined, width: number, numHeads: number): number {
  if (given != null) return given;
  if (width % numHeads === 0) return width / numHeads;
  throw new ConfigError(
    component,
    `head_dim: expected hidden_size ${width} to be a multiple of num_attention_heads ${numHeads}, got neither that nor head_dim`,
  );
}

const number = z.number().nullish();

/** One group of rotary keys: `rope_scaling` up to transformers 4, `rope_parameters` after it. */
const rotaryGroup = z.looseObject({
  type: z.string().nullish(),
  rope_type: z.string().nullish(),
  rope_theta: number,
  partial_rotary_factor: number,
  factor: number,
  original_max_position_embeddings: number,
  low_freq_factor: number,
  high_freq_factor: number,
  beta_fast: number,
  beta_slow: number,
  truncate: z.boolean().nullish(),
  attention_factor: number,
  mscale: number,
  mscale_all_dim: number,
});
type RotaryGroup = z.output<typeof rotaryGroup>;

/** The rotary keys of config.json, for a schema to spread. */
export const rotaryKeys = {
  rope_theta: number,
  rope_percent: number,
  rope_percentage: number,
  partial_rotary_factor: number,
  rope_scaling: rotaryGroup.nullish(),
  rope_parameters: rotaryGroup.nullish(),
};
export type RotaryKeys = z.output<z.ZodObject<typeof rotaryKeys>>;

export interface RotaryContext {
  headDim: number;
  maxPositions: number;
  /** Share of a head that turns where no key says. */
  defaultFraction: number;
  /** The model's name, for messages. */
  model: string;
}

/** Reads the rotary positions. Throws ConfigError for a kind of scaling that is not known. */
export function readRotary(keys: RotaryKeys, context: RotaryContext): RotaryConfig {
  const { rope_parameters: parameters, rope_scaling: scaling } = keys;
  const fraction =
    parameters?.partial_rotary_factor ??
    keys.partial_rotary_factor ??
    keys.rope_percent ??
    keys.rope_percentage ??
    context.defaultFraction;
  return {
    rotaryDim: Math.floor(context.headDim * fraction),
    base: parameters?.rope_theta ?? keys.rope_theta ?? 10000,
    scaling: readScaling(scaling ?? parameters ?? {}, context),
  };
}

function readScaling(group: RotaryGroup, { maxPositions, model }: RotaryContext): RotaryScaling | undefined {
  const kind = group.rope_type ?? group.type ?? "default";
  const originalPositions = group.original_max_position_embeddings ?? maxPositions;
  const needed = (key: keyof RotaryGroup): number => {
    const value = group[key];
    if (typeof value === "number" && value > 0) return value;
    throw new ConfigError(
      component,
      `rope_scaling.${key}: expected a positive number for rope_type ${kind}, got ${JSON.stringify(value ?? null)}`,
    );
  };
  switch (kind) {
    case "default":
      refuseNested(group);
      return undefined;
    case "linear":
    case "dynamic":
      return { kind, factor: needed("factor") };
    case "llama3":
      return {
        kind,
        factor: needed("factor"),
        lowFrequencyFactor: needed("low_freq_factor"),
        highFrequencyFactor: needed("high_freq_factor"),
        originalPositions,
      };
    case "yarn": {
      const factor = group.factor ?? maxPositions / originalPositions;
      return {
        kind,
        factor,
        originalPositions,
        betaFast: group.beta_fast ?? 32,
        betaSlow: group.beta_slow ?? 1,
        truncates: group.truncate ?? true,
        amplitude: group.attention_factor ?? readAmplitude(group, factor),
      };
    }
    default:
      refuseOthers("rope_scaling.rope_type", kind, {
        supported: ["default", "linear", "dynamic", "llama3", "yarn"],
        model,
      });
      return undefined;
  }
}

/** Newer models may have a group of rotary keys per kind of layer. */
function refuseNested(group: RotaryGroup): void {
  for (const [key, value] of Object.entries(group)) {
    if (typeof value !== "object" || value === null) continue;
    throw new ConfigError(
      component,
      `rope_parameters: expected the same rotary positions in all layers, got ${key} of their own`,
    );
  }
}

function readAmplitude({ mscale, mscale_all_dim: all }: RotaryGroup, factor: number): number {
  if (!mscale || !all) return yarnAmplitude(factor);
  return yarnAmplitude(factor, mscale) / yarnAmplitude(factor, all);
}

/**
 * The rotary keys in the older spelling and the newest, so that all versions of transformers read them. With `fraction` the share of
 * a head that turns is said, as families need whose heads need not turn whole.
 */
export function writeRotary(
  { base, scaling }: RotaryConfig,
  { fraction }: { fraction?: number } = {},
): Record<string, unknown> {
  const share = fraction === undefined ? {} : { partial_rotary_factor: fraction };
  const group = scaling === undefined ? undefined : scalingKeys(scaling);
  // Up to 4.42 the kind was called type, and a third key beside it and the factor was refused.
  const isOldest = scaling?.kind === "linear" || scaling?.kind === "dynamic";
  return {
    rope_theta: base,
    ...share,
    rope_scaling: group === undefined ? null : { [isOldest ? "type" : "rope_type"]: scaling?.kind, ...group },
    rope_parameters: { rope_theta: base, ...share, rope_type: scaling?.kind ?? "default", ...group },
  };
}

function scalingKeys(scaling: RotaryScaling): Record<string, unknown> {
  switch (scaling.kind) {
    case "linear":
    case "dynamic":
      return { factor: scaling.factor };
    case "llama3":
      return {
        factor: scaling.factor,
        low_freq_factor: scaling.lowFrequencyFactor,
        high_freq_factor: scaling.highFrequencyFactor,
        original_max_position_embeddings: scaling.originalPositions,
      };
    case "yarn":
      return {
        factor: scaling.factor,
        original_max_position_embeddings: scaling.originalPositions,
        beta_fast: scaling.betaFast,
        beta_slow: scaling.betaSlow,
        truncate: scaling.truncates,
        attention_factor: scaling.amplitude,
      };
  }
}
