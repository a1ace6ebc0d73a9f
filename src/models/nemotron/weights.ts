/**
 * Names of the weights in Hugging Face checkpoints (NemotronForCausalLM). Query, key and value projections are rows of our one
 * fused matrix. Norm gains are stored minus one on both sides and copied as they are.
 */
import type { DecoderConfig } from "../common/config.ts";
import type { WeightSlice } from "../common/family.ts";
import {
  embeddingName,
  finalNormBiasName,
  finalNormGainName,
  headName,
  layerNames,
} from "../common/specs.ts";
import { stackedSlices, wholeSlice } from "../common/slices.ts";

export function nemotronWeightSlices(config: DecoderConfig): WeightSlice[] {
  const { width, ffnWidth, vocabSize, numHeads, numKvHeads, headDim, biases } = config;
  const headRows = [numHeads * headDim, numKvHeads * headDim, numKvHeads * headDim];
  const fused = (prefix: string, suffix: string, parameter: string): WeightSlice[] =>
    stackedSlices(
      parameter,
      ["q_proj", "k_proj", "v_proj"].map((name, i) => [`${prefix}.${name}.${suffix}`, headRows[i]]),
    );
  const layers = Array.from({ length: config.numLayers }, (_, layer) => {
    const names = layerNames(layer);
    const prefix = `model.layers.${layer}`;
    return [
      wholeSlice(`${prefix}.input_layernorm.weight`, names.attentionNormGain, width),
      wholeSlice(`${prefix}.input_layernorm.bias`, names.attentionNormBias, width),
      ...fused(`${prefix}.self_attn`, "weight", names.qkv),
      ...(biases.qkv ? fused(`${prefix}.self_attn`, "bias", names.qkvBias) : []),
      wholeSlice(`${prefix}.self_attn.o_proj.weight`, names.output, width),
      ...(biases.output ? [wholeSlice(`${prefix}.self_attn.o_proj.bias`, names.outputBias, width)] : []),
      wholeSlice(`${prefix}.post_attention_layernorm.weight`, names.mlpNormGain, width),
      wholeSlice(`${prefix}.post_attention_layernorm.bias`, names.mlpNormBias, width),
      wholeSlice(`${prefix}.mlp.up_proj.weight`, names.up, ffnWidth),
      ...(biases.mlp ? [wholeSlice(`${prefix}.mlp.up_proj.bias`, names.upBias, ffnWidth)] : []),
      wholeSlice(`${prefix}.mlp.down_proj.weight`, names.down, width),
      ...(biases.mlp ? [wholeSlice(`${prefix}.mlp.down_proj.bias`, names.downBias, width)] : []),
    ];
  });
  return [
    wholeSlice("model.embed_tokens.weight", embeddingName, vocabSize),
    ...layers.flat(),
    wholeSlice("model.norm.weight", finalNormGainName, width),
    wholeSlice("model.norm.bias", finalNormBiasName, width),
    ...(config.tiesEmbeddings ? [] : [wholeSlice("lm_head.weight", headName, vocabSize)]),
  ];
}
