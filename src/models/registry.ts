/** The families by name, and what works on a model of whichever family it is. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { CheckpointError, ConfigError, readJson } from "../base/index.ts";
import type { FloatDtype } from "../base/index.ts";
import type { Context } from "../tensor/index.ts";
import type { DecoderConfig } from "./common/config.ts";
import { Decoder } from "./common/decoder.ts";
import type { ModelFamily } from "./common/family.ts";
import { readModelWeights, writeModelFolder } from "./common/folder.ts";
import { nemotron } from "./nemotron/index.ts";

const families: readonly ModelFamily[] = [nemotron];

function familyNamed(name: string): ModelFamily {
  const family = families.find((candidate) => candidate.name === name);
  if (family === undefined) throw new ConfigError("model", `expected a known family, got '${name}'`);
  return family;
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
  writeModelFolder(familyNamed(decoder.config.family), decoder, { folder, extraFiles });
}

/** Fills a decoder's weights from a Hugging Face folder. Throws CheckpointError. */
export function loadModelWeights(context: Context, decoder: Decoder, folder: string): void {
  readModelWeights(context, { family: familyNamed(decoder.config.family), decoder, folder });
}

/** Opens a Hugging Face folder for inference. Throws FileError, ConfigError, CheckpointError, OutOfMemoryError. */
export function loadModelFolder(context: Context, folder: string, dtype: FloatDtype): Decoder {
  const decoder = new Decoder(context, readModelFolderConfig(folder), { dtype });
  try {
    loadModelWeights(context, decoder, folder);
    return decoder;
  } catch (error) {
    decoder.dispose();
    throw error;
  }
}
