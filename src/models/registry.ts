/** The families by name, and what works on a model of whichever family it is. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { CheckpointError, ConfigError, nearest, readJson } from "../base/index.ts";
import type { FloatDtype } from "../base/index.ts";
import { openCheckpointFolder } from "../checkpoint/index.ts";
import type { ModelCheckpoint, TensorSource } from "../checkpoint/index.ts";
import type { Context } from "../tensor/index.ts";
import { checkDecoderConfig } from "./common/config.ts";
import type { DecoderConfig } from "./common/config.ts";
import { refuseForeignFeatures } from "./common/configKeys.ts";
import { Decoder } from "./common/decoder.ts";
import type { DecoderOptions } from "./common/decoderWeights.ts";
import type { ModelFamily } from "./common/family.ts";
import { writeModelFolder } from "./common/folder.ts";
import { readWeights } from "./common/load.ts";
import { mapWeights } from "./common/mapping.ts";
import type { MappedWeights } from "./common/mapping.ts";
import { matchTensors } from "./common/match.ts";
import { gpt2 } from "./gpt2/index.ts";
import { llama, mistral, qwen2 } from "./llama/index.ts";
import { nemotron } from "./nemotron/index.ts";

const families: readonly ModelFamily[] = [nemotron, llama, mistral, qwen2, gpt2];

/** The family of a configuration. Throws ConfigError. */
export function modelFamily({ family: name }: Pick<DecoderConfig, "family">): ModelFamily {
  const family = families.find((candidate) => candidate.name === name);
  if (family !== undefined) return family;
  throw new ConfigError("model", `expected a known family, got '${name}'`);
}

/** Checks what the shapes need and what the family's files can say. Throws ConfigError. */
export function checkModelConfig(config: DecoderConfig): DecoderConfig {
  modelFamily(config).checkShape?.(config);
  return checkDecoderConfig(config);
}

/** The names of all presets, family by family. */
export const modelPresetNames: readonly string[] = families.flatMap(({ presets }) => Object.keys(presets));

/** The configuration of a named size of any family. Throws ConfigError with the nearest name. */
export function modelPreset(name: string): DecoderConfig {
  const key = name.toLowerCase();
  for (const { presets, presetAliases } of families) {
    const preset = Object.hasOwn(presetAliases, key) ? presetAliases[key] : key;
    if (Object.hasOwn(presets, preset)) return presets[preset]();
  }
  const aliases = families.flatMap(({ presetAliases }) => Object.keys(presetAliases));
  const near = nearest(key, [...modelPresetNames, ...aliases]);
  throw new ConfigError("model", `expected a model name, got '${name}'`, {
    hint: near === undefined ? "'nautilus model list' shows them" : `did you mean '${near}'?`,
  });
}

/** Reads a config.json of any family. Throws ConfigError naming what is not supported. */
export function parseModelConfig(json: unknown): DecoderConfig {
  const modelType =
    typeof json === "object" && json !== null && "model_type" in json ? String(json.model_type) : "";
  const family = families.find((candidate) => candidate.modelType === modelType);
  if (family === undefined) {
    const known = families.map((candidate) => candidate.modelType).join(", ");
    throw new ConfigError("config.json", `expected model_type to be one of ${known}, got '${modelType}'`);
  }
  refuseForeignFeatures(json);
  return family.readConfig(json);
}

/** The configuration of a model folder. Throws FileError, ConfigError, CheckpointError. */
export function readModelFolderConfig(folder: string): DecoderConfig {
  const path = join(folder, "config.json");
  if (!existsSync(path))
    throw new CheckpointError("model", `expected a model folder with config.json at ${folder}, got none`, {
      hint: "check --model",
    });
  return parseModelConfig(readJson("model", path));
}

/** Writes a decoder as a Hugging Face folder. Throws FileError. */
export function saveModelFolder(
  decoder: Decoder,
  folder: string,
  extraFiles: Readonly<Record<string, string>> = {},
): void {
  if (decoder.quantised.size > 0) {
    throw new ConfigError("model", "expected a model in f32 or bf16 to write, got a quantised one", {
      hint: "the folder that it was opened from holds its weights in full",
    });
  }
  writeModelFolder(modelFamily(decoder.config), decoder, { folder, extraFiles });
}

/**
 * The tensors of a checkpoint under Hugging Face's names with their names in the source, checked against the configuration. Throws
 * CheckpointError for what is missing, foreign or of another shape.
 */
export function modelTensors(config: DecoderConfig, source: TensorSource): Map<string, string> {
  const matched = matchTensors(modelFamily(config), config, source);
  return new Map([...matched].map(([stored, { name }]) => [name, stored]));
}

/** Fills a decoder's weights from a source under Hugging Face's names, which stays open. Throws CheckpointError, ConfigError where they can only be read. */
export function loadWeights(context: Context, decoder: Decoder, source: TensorSource): void {
  readWeights(context, { family: modelFamily(decoder.config), decoder, source });
}

/** Fills a decoder's weights from a Hugging Face folder. Throws CheckpointError. */
export function loadModelWeights(context: Context, decoder: Decoder, folder: string): void {
  using source = openCheckpointFolder(folder);
  loadWeights(context, decoder, source);
}

/** How a model for inference is held. */
type HeldAs = Pick<DecoderOptions, "dtype" | "quantise">;

/** A dtype alone says that and nothing more. */
export type LoadOptions = FloatDtype | HeldAs;

function decoderOptions<Options extends HeldAs>(options: FloatDtype | Options): HeldAs | Options {
  return typeof options === "string" ? { dtype: options } : options;
}

/** The configuration of an open checkpoint of any format. Throws CheckpointError when it has none, ConfigError. */
export function checkpointConfig({ config, path }: Pick<ModelCheckpoint, "config" | "path">): DecoderConfig {
  if (config !== undefined) return parseModelConfig(config);
  throw new CheckpointError(
    "model",
    `expected a model with its configuration at ${path}, got weights alone`,
    {
      hint: "name the folder with config.json",
    },
  );
}

/**
 * The weights of an open checkpoint that a model for inference can use where they lie, as memory that is read when it is first used: to be
 * given to `loadCheckpointModel`, and disposed once that is done. None on a device with memory of its own. Throws ConfigError, CheckpointError.
 */
export function mapCheckpointWeights(
  context: Context,
  checkpoint: Pick<ModelCheckpoint, "config" | "weights" | "path">,
  options: LoadOptions,
): MappedWeights {
  const config = checkpointConfig(checkpoint);
  const { dtype, quantise } = decoderOptions(options);
  return mapWeights(context, {
    family: modelFamily(config),
    config,
    source: checkpoint.weights,
    dtype,
    quantise,
  });
}

/**
 * A model for inference out of an open checkpoint of any format; with `mapped`, of the same checkpoint, its weights can only be read. Throws
 * ConfigError, CheckpointError, OutOfMemoryError.
 */
export function loadCheckpointModel(
  context: Context,
  checkpoint: Pick<ModelCheckpoint, "config" | "weights" | "path">,
  options: FloatDtype | (HeldAs & { mapped?: MappedWeights | undefined }),
): Decoder {
  const config = checkpointConfig(checkpoint);
  const mapped = typeof options === "string" ? undefined : options.mapped;
  const decoder = new Decoder(context, config, decoderOptions(options));
  try {
    readWeights(context, { family: modelFamily(config), decoder, source: checkpoint.weights, mapped });
    mapped?.fetchAhead(context);
    return decoder;
  } catch (error) {
    decoder.dispose();
    throw error;
  }
}

/** Opens a Hugging Face folder for inference. Throws FileError, ConfigError, CheckpointError, OutOfMemoryError. */
export function loadModelFolder(context: Context, folder: string, options: LoadOptions): Decoder {
  const decoder = new Decoder(context, readModelFolderConfig(folder), decoderOptions(options));
  try {
    loadModelWeights(context, decoder, folder);
    return decoder;
  } catch (error) {
    decoder.dispose();
    throw error;
  }
}
