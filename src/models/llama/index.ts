/** The Llama family in its three dialects: llama, mistral and qwen2. */
import type { ModelFamily } from "../common/family.ts";
import { architectures, readLlamaConfig, writeLlamaConfig } from "./config.ts";
import type { LlamaDialect } from "./config.ts";
import { llamaAliases, llamaPresets } from "./presets.ts";
import { llamaWeightSlices } from "./weights.ts";

function llamaFamily(dialect: LlamaDialect): ModelFamily {
  return {
    name: dialect,
    architecture: architectures[dialect],
    modelType: dialect,
    basePrefix: "model.",
    ignoredTensors: /(^|\.)rotary_emb\.inv_freq$/,
    presets: llamaPresets[dialect],
    presetAliases: llamaAliases[dialect],
    readConfig: (json) => readLlamaConfig(dialect, json),
    writeConfig: writeLlamaConfig,
    weightSlices: llamaWeightSlices,
  };
}

export const llama = llamaFamily("llama");
export const mistral = llamaFamily("mistral");
export const qwen2 = llamaFamily("qwen2");
