/**
 * Configuration of GPT-2 (Radford et al., 2019): learned positions, LayerNorm with bias, GELU, biases everywhere, tied embeddings.
 *
 * Keys and defaults: transformers, src/transformers/models/gpt2/configuration_gpt2.py; its `attribute_map` names are read too, and `n_ctx`.
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
  refuseOthers,
  tokenIdKey,
  writeSharedKeys,
} from "../common/configKeys.ts";

const model = "gpt2";
const size = z.int().nullish();

const schema = z.looseObject({
  vocab_size: z.int().default(50257),
  n_positions: size,
  n_ctx: size,
  max_position_embeddings: size,
  n_embd: size,
  hidden_size: size,
  n_layer: size,
  num_hidden_layers: size,
  n_head: size,
  num_attention_heads: size,
  n_inner: size,
  activation_function: z.string().default("gelu_new"),
  layer_norm_epsilon: z.number().default(1e-5),
  initializer_range: z.number().default(0.02),
  scale_attn_weights: z.boolean().default(true),
  scale_attn_by_inverse_layer_idx: z.boolean().default(false),
  tie_word_embeddings: z.boolean().default(true),
  bos_token_id: tokenIdKey,
  eos_token_id: tokenIdKey,
  pad_token_id: tokenIdKey,
});

/** Reads config.json. Throws ConfigError. */
export function readGpt2Config(json: unknown): DecoderConfig {
  const config = parseConfig("config.json", schema, json);
  refuseOthers("scale_attn_weights", config.scale_attn_weights, { supported: [true], model });
  refuseOthers("scale_attn_by_inverse_layer_idx", config.scale_attn_by_inverse_layer_idx, {
    supported: [false],
    model,
  });
  const width = config.n_embd ?? config.hidden_size ?? 768;
  const numHeads = config.n_head ?? config.num_attention_heads ?? 12;
  return checkDecoderConfig({
    ...gpt2Traits,
    vocabSize: config.vocab_size,
    width,
    ffnWidth: config.n_inner ?? 4 * width,
    numLayers: config.n_layer ?? config.num_hidden_layers ?? 12,
    numHeads,
    numKvHeads: numHeads,
    headDim: headWidth(undefined, width, numHeads),
    maxPositions: config.n_positions ?? config.max_position_embeddings ?? config.n_ctx ?? 1024,
    norm: { ...gpt2Traits.norm, eps: config.layer_norm_epsilon },
    activation: readActivation("activation_function", config.activation_function, model),
    tiesEmbeddings: config.tie_word_embeddings,
    initStd: config.initializer_range,
    bosId: firstId(config.bos_token_id, 50256),
    eosId: firstId(config.eos_token_id, 50256),
    padId: firstId(config.pad_token_id, undefined),
  });
}

/** Its files know neither grouped heads nor a width of their own. Throws ConfigError. */
export function checkGpt2Shape({ numHeads, numKvHeads, headDim, width }: DecoderConfig): void {
  if (numKvHeads === numHeads && headDim * numHeads === width) return;
  throw new ConfigError(
    "model",
    `expected as many key heads as heads and heads that share the width for a gpt2 model, got ${numHeads} heads, ${numKvHeads} key heads, ${headDim} wide, of ${width}`,
    { hint: "set width, numHeads, numKvHeads and headDim together, or take a llama preset" },
  );
}

/** Writes config.json, which all versions of transformers read. */
export function writeGpt2Config(config: DecoderConfig, dtype: string): Record<string, unknown> {
  return {
    architectures: ["GPT2LMHeadModel"],
    model_type: model,
    vocab_size: config.vocabSize,
    n_positions: config.maxPositions,
    n_ctx: config.maxPositions,
    n_embd: config.width,
    n_layer: config.numLayers,
    n_head: config.numHeads,
    n_inner: config.ffnWidth === 4 * config.width ? null : config.ffnWidth,
    // The name that the published models have; the same function as gelu_pytorch_tanh.
    activation_function: config.activation === "gelu-tanh" ? "gelu_new" : activationName(config.activation),
    layer_norm_epsilon: config.norm.eps,
    initializer_range: config.initStd,
    resid_pdrop: 0,
    embd_pdrop: 0,
    attn_pdrop: 0,
    scale_attn_weights: true,
    scale_attn_by_inverse_layer_idx: false,
    ...writeSharedKeys(config, dtype),
  };
}

/** What all models of the family have in common. */
export const gpt2Traits = {
  family: "gpt2",
  norm: { kind: "layer-norm", eps: 1e-5, gainOffset: 0, hasBias: true },
  activation: "gelu-tanh",
  isGated: false,
  biases: { qkv: true, output: true, mlp: true },
  rotary: undefined,
  hasLearnedPositions: true,
  tiesEmbeddings: true,
  initStd: 0.02,
  bosId: 50256,
  eosId: 50256,
  padId: undefined,
} as const;
