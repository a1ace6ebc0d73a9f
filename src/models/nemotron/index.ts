/** The Nemotron family: one implementation for all its public sizes. */
import type { ModelFamily } from "../common/family.ts";
import { readNemotronConfig, writeNemotronConfig } from "./config.ts";
import { nemotronAliases, nemotronPreset, nemotronPresetNames } from "./presets.ts";
import { nemotronWeightSlices } from "./weights.ts";

export const nemotron: ModelFamily = {
  name: "nemotron",
  architecture: "NemotronForCausalLM",
  modelType: "nemotron",
  basePrefix: "model.",
  ignoredTensors: /(^|\.)rotary_emb\.inv_freq$/,
  presets: Object.fromEntries(nemotronPresetNames.map((name) => [name, () => nemotronPreset(name)])),
  presetAliases: nemotronAliases,
  readConfig: readNemotronConfig,
  writeConfig: writeNemotronConfig,
  weightSlices: nemotronWeightSlices,
};

export { nemotronPreset, nemotronPresetNames };
