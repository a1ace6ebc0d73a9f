/**
 * adapter_config.json of PEFT, both ways (peft: src/peft/config.py and the config.py of each tuner; unknown keys are dropped there, and
 * ignored here). Which modules an adapter is on, and their ranks, follow from the tensors of the file; the configuration gives the scales.
 */
import { z } from "zod";
import { CheckpointError } from "../../../base/index.ts";
import type { DecoderConfig } from "../../common/config.ts";
import { parseAdapterConfig } from "../config.ts";
import type { AdapterConfig } from "../config.ts";
import type { TargetModule } from "../targets.ts";
import { component } from "./names.ts";

const nameList = z.union([z.string(), z.array(z.string())]).nullish();
const rates = z.record(z.string(), z.number()).nullish();
const peftSchema = z.looseObject({
  peft_type: z.string(),
  base_model_name_or_path: z.string().nullish(),
  r: z.int().optional(),
  lora_alpha: z.number().optional(),
  lora_dropout: z.number().nullish(),
  use_rslora: z.boolean().nullish(),
  use_dora: z.boolean().nullish(),
  bias: z.string().nullish(),
  modules_to_save: z.array(z.string()).nullish(),
  trainable_token_indices: z.unknown().optional(),
  alpha_pattern: rates,
  feedforward_modules: nameList,
  num_virtual_tokens: z.int().optional(),
});
export type PeftConfig = z.output<typeof peftSchema>;

/** Checks a parsed adapter_config.json. Throws CheckpointError naming what is not supported. */
export function parsePeftConfig(json: unknown, path: string): PeftConfig {
  const result = peftSchema.safeParse(json);
  if (!result.success) {
    const [issue] = result.error.issues;
    throw new CheckpointError(
      component,
      `expected a PEFT configuration in ${path}, got ${issue.path.join(".") || "it"}: ${issue.message}`,
    );
  }
  const config = result.data;
  const refused = [
    config.bias != null && config.bias !== "none" && `bias "${config.bias}"`,
    config.modules_to_save != null && config.modules_to_save.length > 0 && "modules_to_save",
    config.trainable_token_indices != null && "trainable_token_indices",
  ].find((reason) => reason !== false);
  if (refused !== undefined)
    throw new CheckpointError(component, `expected an adapter without ${refused}, got one in ${path}`, {
      hint: "Nautilus does not read this part of PEFT",
    });
  return config;
}

/** A tensor of the file as the configuration needs it: module path and shape. */
export interface FileModule {
  path: string;
  shape: readonly number[];
}

/** The configuration of an adapter file whose tensors are on `modules` (LoRA: its A; IA3: its factors). Throws CheckpointError. */
export function adapterConfigOf(
  peft: PeftConfig,
  { modules, path }: { modules: readonly FileModule[]; path: string },
): AdapterConfig {
  switch (peft.peft_type) {
    case "LORA":
      return loraConfig(peft, modules);
    case "IA3": {
      const targets = modules.map((module) => module.path);
      const feedforward = modules.filter(({ shape }) => shape[0] === 1).map((module) => module.path);
      return parseAdapterConfig({
        method: "ia3",
        targets,
        ...(feedforward.length > 0 ? { feedforward } : {}),
      });
    }
    case "PROMPT_TUNING":
    case "P_TUNING":
      // The encoder is not in the file; what it gave is a plain table.
      return parseAdapterConfig({ method: "prompt-tuning", numTokens: peft.num_virtual_tokens });
    default:
      throw new CheckpointError(
        component,
        `expected LORA, IA3, PROMPT_TUNING or P_TUNING in ${path}, got '${peft.peft_type}'`,
      );
  }
}

const defaultRank = 8;

function loraConfig(peft: PeftConfig, modules: readonly FileModule[]): AdapterConfig {
  const { r: rank = defaultRank, lora_alpha: alpha = defaultRank } = peft;
  const rankPattern = modules
    .filter(({ shape }) => shape[0] !== rank)
    .map(({ path, shape }) => [path, shape[0]]);
  // PEFT reads the keys as patterns of the end of a path.
  const alphas = Object.entries(peft.alpha_pattern ?? {}).map(([key, value]) => ({
    pattern: new RegExp(`^(.*\\.)?(${key})$`),
    value,
  }));
  const alphaPattern = modules.flatMap(({ path }) => {
    const found = alphas.find(({ pattern }) => pattern.test(path));
    return found === undefined ? [] : [[path, found.value]];
  });
  return parseAdapterConfig({
    method: peft.use_dora === true ? "dora" : "lora",
    targets: modules.map(({ path }) => path),
    rank,
    alpha,
    rsLora: peft.use_rslora ?? false,
    dropout: peft.lora_dropout ?? 0,
    rankPattern: Object.fromEntries(rankPattern),
    alphaPattern: Object.fromEntries(alphaPattern),
  });
}

/** The shortest target_modules that PEFT reads as these modules of all: names where every module of the name is meant, else paths. */
function targetNames(chosen: readonly TargetModule[], all: readonly TargetModule[]): string[] {
  const countOf = (modules: readonly TargetModule[], name: string): number =>
    modules.filter((module) => module.name === name).length;
  const names = [...new Set(chosen.map(({ name }) => name))];
  const areWhole = names.every((name) => countOf(chosen, name) === countOf(all, name));
  return areWhole ? names : chosen.map(({ path }) => path);
}

export interface PeftDescription {
  config: AdapterConfig;
  model: DecoderConfig;
  /** Modules with an adapter, and all that there are. */
  chosen: readonly TargetModule[];
  all: readonly TargetModule[];
  /** Weights of the base lie transposed in its files (GPT-2). */
  isTransposed: boolean;
  baseModel: string;
}

/** The adapter_config.json of an adapter, or undefined where PEFT has no such method. */
export function writePeftConfig(description: PeftDescription): Record<string, unknown> | undefined {
  const { config, model, chosen, all, isTransposed, baseModel } = description;
  const common = {
    base_model_name_or_path: baseModel,
    task_type: "CAUSAL_LM",
    inference_mode: true,
    auto_mapping: null,
    revision: null,
  };
  switch (config.method) {
    case "lora":
    case "dora":
      return {
        peft_type: "LORA",
        ...common,
        r: config.rank,
        lora_alpha: config.alpha ?? 2 * config.rank,
        lora_dropout: config.dropout,
        target_modules: targetNames(chosen, all),
        bias: "none",
        fan_in_fan_out: isTransposed,
        init_lora_weights: true,
        modules_to_save: null,
        rank_pattern: config.rankPattern,
        alpha_pattern: config.alphaPattern,
        use_dora: config.method === "dora",
        use_rslora: config.rsLora,
      };
    case "ia3":
      return {
        peft_type: "IA3",
        ...common,
        target_modules: targetNames(chosen, all),
        feedforward_modules: config.feedforward ?? (config.targets === undefined ? ["down_proj"] : []),
        fan_in_fan_out: isTransposed,
        init_ia3_weights: true,
        modules_to_save: null,
      };
    case "prompt-tuning":
    case "p-tuning":
      return {
        peft_type: config.method === "p-tuning" ? "P_TUNING" : "PROMPT_TUNING",
        ...common,
        num_virtual_tokens: config.numTokens,
        token_dim: model.width,
        num_transformer_submodules: 1,
        num_attention_heads: model.numHeads,
        num_layers: model.numLayers,
        ...(config.method === "p-tuning"
          ? {
              encoder_reparameterization_type: config.encoder === "lstm" ? "LSTM" : "MLP",
              encoder_hidden_size: config.hidden ?? model.width,
              encoder_num_layers: config.numLayers,
              encoder_dropout: 0,
            }
          : { prompt_tuning_init: "RANDOM", prompt_tuning_init_text: null, tokenizer_name_or_path: null }),
      };
    default:
      return undefined;
  }
}
