/** Finds and opens what `--model` names: a run, one of its checkpoints, or a Hugging Face folder. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { CheckpointError } from "../../base/index.ts";
import { findCachedModel, hubSettings, isModelName, openCheckpointFolder } from "../../checkpoint/index.ts";
import { loadModelFolder } from "../../models/index.ts";
import type { Decoder } from "../../models/index.ts";
import type { Context } from "../../tensor/index.ts";
import { loadTokenizer } from "../../text/index.ts";
import type { Tokenizer } from "../../text/index.ts";
import { listCheckpoints } from "../../train/index.ts";

export interface OpenModel extends Disposable {
  folder: string;
  decoder: Decoder;
  tokenizer: Tokenizer;
}

/** The model folder behind a path or the name of a pulled model (`org/name`, `org/name@revision`). Throws CheckpointError. */
export function findModelFolder(path: string): string {
  const newest = listCheckpoints(path).at(-1)?.path;
  // What lies here goes before a pulled model of the same name.
  const pulled = existsSync(path) ? undefined : findCachedModel(path, hubSettings().cacheFolder)?.folder;
  const candidates = [
    ...(newest === undefined ? [] : [join(newest, "model")]),
    join(path, "model"),
    pulled ?? path,
  ];
  const found = candidates.find((candidate) => existsSync(join(candidate, "config.json")));
  if (found !== undefined) return found;
  throw new CheckpointError(
    "model",
    `expected a run, a checkpoint or a model folder at ${path}, got ${existsSync(path) ? "none of them" : "nothing there"}`,
    {
      hint: isModelName(path)
        ? `fetch it with 'nautilus pull ${path}', or train one with 'nautilus train' or 'nautilus demo'`
        : "train one with 'nautilus train' or 'nautilus demo'",
    },
  );
}

/** Opens model and tokenizer. Throws CheckpointError, ConfigError, TokenizerError, OutOfMemoryError. */
export function openModel(context: Context, path: string, precision?: "f32" | "bf16"): OpenModel {
  const folder = findModelFolder(path);
  const tokenizer = loadTokenizer(folder);
  const decoder = loadModelFolder(context, folder, precision ?? storedPrecision(folder));
  return { folder, decoder, tokenizer, [Symbol.dispose]: () => decoder.dispose() };
}

function storedPrecision(folder: string): "f32" | "bf16" {
  using source = openCheckpointFolder(folder);
  for (const name of source.names()) return source.info(name).dtype === "f32" ? "f32" : "bf16";
  return "f32";
}

/** The model's ends of text: the tokenizer's, and those of generation_config.json. */
export function endTokens(folder: string, tokenizer: Tokenizer): number[] {
  const path = join(folder, "generation_config.json");
  const ends = new Set([tokenizer.eosId]);
  if (existsSync(path)) {
    const json: unknown = JSON.parse(readFileSync(path, "utf8"));
    const eos: unknown =
      typeof json === "object" && json !== null && "eos_token_id" in json ? json.eos_token_id : undefined;
    for (const id of Array.isArray(eos) ? eos : [eos]) if (typeof id === "number") ends.add(id);
  }
  return [...ends];
}
