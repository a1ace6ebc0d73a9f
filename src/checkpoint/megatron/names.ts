/**
 * Names of a GPT decoder's tensors in Megatron's checkpoints over the years, mapped to one spelling: Megatron-core's with fused layer
 * norms and no prefix ("decoder.layers.7.self_attention.linear_qkv.layer_norm_weight"). Sources: megatron/core/models/gpt
 * (gpt_layer_specs.py holds the norms' rename map), Megatron-LM's legacy language_model.py, NeMo 1's GPT model.
 */

/** Where a stored tensor belongs. */
export interface MegatronName {
  /** The tensor's name; of a layer's tensor, its name within the layer. */
  readonly name: string;
  /** The layer; "stacked" when all layers lie in one tensor, undefined for tensors outside the layers. */
  readonly layer: number | "stacked" | undefined;
}

export const embeddingName = "embedding.word_embeddings.weight";
export const positionsName = "embedding.position_embeddings.weight";
export const finalNormName = "decoder.final_layernorm";
export const outputName = "output_layer.weight";

/** Tensors of one layer, by what they do. */
export const layerTensors = {
  attentionNorm: "self_attention.linear_qkv.layer_norm_",
  qkv: "self_attention.linear_qkv.",
  attentionOutput: "self_attention.linear_proj.",
  mlpNorm: "mlp.linear_fc1.layer_norm_",
  up: "mlp.linear_fc1.",
  down: "mlp.linear_fc2.",
} as const;

/** How a tensor is cut among the ranks of tensor parallelism; undefined: every rank has all of it. */
export function splitAxis({ name, layer }: MegatronName): 0 | 1 | undefined {
  if (layer === undefined) return name === embeddingName || name === outputName ? 0 : undefined;
  if (/^(self_attention\.linear_qkv|mlp\.linear_fc1)\.(weight|bias)$/.test(name)) return 0;
  return /^(self_attention\.linear_proj|mlp\.linear_fc2)\.weight$/.test(name) ? 1 : undefined;
}

/** The full name of a layer's tensor. */
export function layerName(layer: number, name: string): string {
  return `decoder.layers.${layer}.${name}`;
}

/** Older or unfused spellings within a layer, the longest prefix first. */
const layerAliases: readonly (readonly [RegExp, string])[] = [
  [/^input_layernorm\./, layerTensors.attentionNorm],
  [/^(post_attention|pre_mlp)_layernorm\./, layerTensors.mlpNorm],
  [/^(self_)?attention\.query_key_value\./, layerTensors.qkv],
  [/^(self_)?attention\.dense\./, layerTensors.attentionOutput],
  [/^mlp\.dense_h_to_4h\./, layerTensors.up],
  [/^mlp\.dense_4h_to_h\./, layerTensors.down],
];
const layerTensorPattern =
  /^(self_attention\.linear_qkv\.(layer_norm_)?|self_attention\.linear_proj\.|mlp\.linear_fc1\.(layer_norm_)?|mlp\.linear_fc2\.)(weight|bias)$/;
const otherNames = new Set([
  embeddingName,
  positionsName,
  `${finalNormName}.weight`,
  `${finalNormName}.bias`,
  outputName,
]);

/** What rides along and is no weight: optimizer and random states, FP8 scales, rotary tables, the tied head's second copy. */
const ignored =
  /(^|\.)_extra_state(\/|\.|$)|inv_freq$|^(optimizer|chained_\d+|optimizer_states|opt_param_scheduler|lr_schedulers|rng_state|rerun_state_machine|args|iteration)(\.|$)|word_embeddings_for_head\./;

/** Reads a stored name: its place in the decoder, "ignored", or undefined for one that a decoder does not have. */
export function parseMegatronName(stored: string): MegatronName | "ignored" | undefined {
  if (ignored.test(stored)) return "ignored";
  const bare = stored
    .replace(/^((state_dict|model|module)\.)+/, "")
    .replace(/^language_model\./, "")
    .replace(/^(encoder|transformer)\./, "decoder.");
  if (otherNames.has(bare)) return { name: bare, layer: undefined };
  const [, digits, rest] = /^decoder\.layers\.(?:(\d+)\.)?(.+)$/.exec(bare) ?? [];
  if (rest === undefined) return undefined;
  const alias = layerAliases.find(([pattern]) => pattern.test(rest));
  const name = alias === undefined ? rest : rest.replace(alias[0], alias[1]);
  if (!layerTensorPattern.test(name)) return undefined;
  return { name, layer: digits === undefined ? "stacked" : Number(digits) };
}
