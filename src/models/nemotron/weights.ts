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

export function nemotronWeightSlices(config: DecoderConfig): WeightSlice[] {
  const { width, ffnWidth, vocabSize, numHeads, numKvHeads, headDim, biases } = config;
  const queryRows = numHeads * headDim;
  const kvRows = numKvHeads * headDim;
  const whole = (name: string, parameter: string, numRows: number): WeightSlice => ({
    name,
    parameter,
    rowStart: 0,
    numRows,
  });
  const fused = (prefix: string, suffix: string, parameter: string): WeightSlice[] => [
    { name: `${prefix}.q_proj.${suffix}`, parameter, rowStart: 0, numRows: queryRows },
    { name: `${prefix}.k_proj.${suffix}`, parameter, rowStart: queryRows, numRows: kvRows },
    { name: `${prefix}.v_proj.${suffix}`, parameter, rowStart: queryRows + kvRows, numRows: kvRows },
  ];
  const layers = Array.from({ length: config.numLayers }, (_, layer) => {
    const names = layerNames(layer);
    const prefix = `model.layers.${layer}`;
    return [
      whole(`${prefix}.input_layernorm.weight`, names.attentionNormGain, width),
      whole(`${prefix}.input_layernorm.bias`, names.attentionNormBias, width),
      ...fused(`${prefix}.self_attn`, "weight", names.qkv),
      ...(biases.qkv ? fused(`${prefix}.self_attn`, "bias", names.qkvBias) : []),
      whole(`${prefix}.self_attn.o_proj.weight`, names.output, width),
      ...(biases.output ? [whole(`${prefix}.self_attn.o_proj.bias`, names.outputBias, width)] : []),
      whole(`${prefix}.post_attention_layernorm.weight`, names.mlpNormGain, width),
      whole(`${prefix}.post_attention_layernorm.bias`, names.mlpNormBias, width),
      whole(`${prefix}.mlp.up_proj.weight`, names.up, ffnWidth),
      ...(biases.mlp ? [whole(`${prefix}.mlp.up_proj.bias`, names.upBias, ffnWidth)] : []),
      whole(`${prefix}.mlp.down_proj.weight`, names.down, width),
      ...(biases.mlp ? [whole(`${prefix}.mlp.down_proj.bias`, names.downBias, width)] : []),
    ];
  });
  return [
    whole("model.embed_tokens.weight", embeddingName, vocabSize),
    ...layers.flat(),
    whole("model.norm.weight", finalNormGainName, width),
    whole("model.norm.bias", finalNormBiasName, width),
    ...(config.tiesEmbeddings ? [] : [whole("lm_head.weight", headName, vocabSize)]),
  ];
}
