/** The Nemotron family: one implementation for all its public sizes. */
import type { ModelFamily } from "../common/family.ts";
import { readNemotronConfig, writeNemotronConfig } from "./config.ts";
import { nemotronWeightSlices } from "./weights.ts";

export const nemotron: ModelFamily = {
  name: "nemotron",
  architecture: "NemotronForCausalLM",
  modelType: "nemotron",
  readConfig: readNemotronConfig,
  writeConfig: writeNemotronConfig,
  weightSlices: nemotronWeightSlices,
};

export { nemotronPreset, nemotronPresetNames } from "./presets.ts";
