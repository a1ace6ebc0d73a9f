/**
 * Names of the weights in Hugging Face checkpoints of GPT-2. Its linear layers are Conv1D modules, which store (inputs, outputs): the
 * transpose of ours. Query, key and value are one matrix there too.
 */
import type { DecoderConfig } from "../common/config.ts";
import type { WeightSlice } from "../common/family.ts";
import {
  embeddingName,
  finalNormBiasName,
  finalNormGainName,
  headName,
  layerNames,
  positionsName,
} from "../common/specs.ts";
import { wholeSlice } from "../common/slices.ts";

export function gpt2WeightSlices(config: DecoderConfig): WeightSlice[] {
  const { width, ffnWidth, vocabSize } = config;
  const linear = (
    name: string,
    [weight, bias]: readonly [string, string],
    numRows: number,
  ): WeightSlice[] => [
    { ...wholeSlice(`${name}.weight`, weight, numRows), isTransposed: true },
    wholeSlice(`${name}.bias`, bias, numRows),
  ];
  const norm = (name: string, gain: string, bias: string): WeightSlice[] => [
    wholeSlice(`${name}.weight`, gain, width),
    wholeSlice(`${name}.bias`, bias, width),
  ];
  const layers = Array.from({ length: config.numLayers }, (_, layer) => {
    const names = layerNames(layer);
    const prefix = `transformer.h.${layer}`;
    return [
      ...norm(`${prefix}.ln_1`, names.attentionNormGain, names.attentionNormBias),
      ...linear(`${prefix}.attn.c_attn`, [names.qkv, names.qkvBias], 3 * width),
      ...linear(`${prefix}.attn.c_proj`, [names.output, names.outputBias], width),
      ...norm(`${prefix}.ln_2`, names.mlpNormGain, names.mlpNormBias),
      ...linear(`${prefix}.mlp.c_fc`, [names.up, names.upBias], ffnWidth),
      ...linear(`${prefix}.mlp.c_proj`, [names.down, names.downBias], width),
    ];
  });
  return [
    wholeSlice("transformer.wte.weight", embeddingName, vocabSize),
    wholeSlice("transformer.wpe.weight", positionsName, config.maxPositions),
    ...layers.flat(),
    ...norm("transformer.ln_f", finalNormGainName, finalNormBiasName),
    ...(config.tiesEmbeddings ? [] : [wholeSlice("lm_head.weight", headName, vocabSize)]),
  ];
}
