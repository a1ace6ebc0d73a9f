/**
 * Names of the weights in Hugging Face checkpoints of Llama, Mistral and Qwen2. Query, key and value projections are rows of our one
 * fused matrix, and so are gate and up projection.
 */
import type { DecoderConfig } from "../common/config.ts";
import type { WeightSlice } from "../common/family.ts";
import { embeddingName, finalNormGainName, headName, layerNames } from "../common/specs.ts";
import { stackedSlices, wholeSlice } from "../common/slices.ts";

export function llamaWeightSlices(config: DecoderConfig): WeightSlice[] {
  const { width, ffnWidth, vocabSize, numHeads, numKvHeads, headDim, biases } = config;
  const headRows = [numHeads * headDim, numKvHeads * headDim, numKvHeads * headDim];
  const layers = Array.from({ length: config.numLayers }, (_, layer) => {
    const names = layerNames(layer);
    const prefix = `model.layers.${layer}`;
    const attention = (suffix: string): [string, number][] =>
      ["q_proj", "k_proj", "v_proj"].map((name, i) => [`${prefix}.self_attn.${name}.${suffix}`, headRows[i]]);
    const raised = (suffix: string): [string, number][] =>
      ["gate_proj", "up_proj"].map((name) => [`${prefix}.mlp.${name}.${suffix}`, ffnWidth]);
    return [
      wholeSlice(`${prefix}.input_layernorm.weight`, names.attentionNormGain, width),
      ...stackedSlices(names.qkv, attention("weight")),
      ...(biases.qkv ? stackedSlices(names.qkvBias, attention("bias")) : []),
      wholeSlice(`${prefix}.self_attn.o_proj.weight`, names.output, width),
      ...(biases.output ? [wholeSlice(`${prefix}.self_attn.o_proj.bias`, names.outputBias, width)] : []),
      wholeSlice(`${prefix}.post_attention_layernorm.weight`, names.mlpNormGain, width),
      ...stackedSlices(names.up, raised("weight")),
      ...(biases.mlp ? stackedSlices(names.upBias, raised("bias")) : []),
      wholeSlice(`${prefix}.mlp.down_proj.weight`, names.down, width),
      ...(biases.mlp ? [wholeSlice(`${prefix}.mlp.down_proj.bias`, names.downBias, width)] : []),
    ];
  });
  return [
    wholeSlice("model.embed_tokens.weight", embeddingName, vocabSize),
    ...layers.flat(),
    wholeSlice("model.norm.weight", finalNormGainName, width),
    ...(config.tiesEmbeddings ? [] : [wholeSlice("lm_head.weight", headName, vocabSize)]),
  ];
}
