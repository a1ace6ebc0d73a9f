/** The GPT-2 family: one implementation for all its public sizes. */
import type { ModelFamily } from "../common/family.ts";
import { checkGpt2Shape, readGpt2Config, writeGpt2Config } from "./config.ts";
import { gpt2Presets } from "./presets.ts";
import { gpt2WeightSlices } from "./weights.ts";

export const gpt2: ModelFamily = {
  name: "gpt2",
  architecture: "GPT2LMHeadModel",
  modelType: "gpt2",
  basePrefix: "transformer.",
  // Old checkpoints hold the causal mask of every layer.
  ignoredTensors: /\.attn\.(bias|masked_bias)$/,
  presets: gpt2Presets,
  presetAliases: { "gpt2-small": "gpt2", "gpt2-124m": "gpt2" },
  readConfig: readGpt2Config,
  checkShape: checkGpt2Shape,
  writeConfig: writeGpt2Config,
  weightSlices: gpt2WeightSlices,
};
