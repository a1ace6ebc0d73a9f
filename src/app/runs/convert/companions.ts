/** What a Hugging Face folder holds beside weights: config.json, generation_config.json, the tokenizer's files, the model card. */
import { mkdirSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { withFileErrors, writeText } from "../../../base/index.ts";
import { repositoryOf, writeModelCard } from "../../../checkpoint/index.ts";
import type { StoredDtype } from "../../../checkpoint/index.ts";
import { configText, modelFamily } from "../../../models/index.ts";
import type { Tokenizer } from "../../../text/index.ts";
import type { ConversionSource } from "./source.ts";

export interface CardOptions {
  license: string | undefined;
  baseModel: string | undefined;
}

const torchDtypes: Partial<Readonly<Record<StoredDtype, string>>> = {
  f32: "float32",
  bf16: "bfloat16",
  f16: "float16",
  f64: "float64",
};

/**
 * config.json with the key spellings of all versions of transformers: those that our own writer knows, under whatever the source says itself.
 */
export function configJson({ json, config, dtype }: ConversionSource): Record<string, unknown> {
  const torchDtype = torchDtypes[dtype] ?? "float32";
  const written = modelFamily(config).writeConfig(config, torchDtype);
  const { transformers_version: _version, ...kept } = json;
  return { ...written, ...kept, torch_dtype: torchDtype, dtype: torchDtype };
}

/** Writes everything but the weights into `folder`. Throws FileError. */
export function writeCompanions(
  source: ConversionSource,
  folder: string,
  { card, title }: { card: CardOptions; title: string },
): void {
  const { checkpoint, json, tokenizer } = source;
  const writeJson = (name: string, value: unknown): void =>
    writeText("convert", join(folder, name), `${JSON.stringify(value, undefined, 2)}\n`);
  writeText("convert", join(folder, "config.json"), configText(configJson(source)));
  const { tokenizerFiles, otherFiles } = checkpoint;
  for (const [name, read] of [...tokenizerFiles, ...otherFiles]) {
    const path = join(folder, tokenizerName(name, [...tokenizerFiles.keys()]));
    withFileErrors("convert", "a writable file", path, () => {
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, read());
    });
  }
  if (!otherFiles.has("generation_config.json")) {
    writeJson("generation_config.json", {
      _from_model_config: true,
      bos_token_id: json["bos_token_id"] ?? null,
      eos_token_id: json["eos_token_id"] ?? null,
      pad_token_id: json["pad_token_id"] ?? null,
    });
  }
  if (tokenizer !== undefined && !tokenizerFiles.has("tokenizer_config.json"))
    writeJson("tokenizer_config.json", tokenizerConfig(tokenizer));
  writeText("convert", join(folder, "README.md"), cardText(source, { card, title }));
}

/** transformers looks for a SentencePiece model under one name only. */
function tokenizerName(name: string, all: readonly string[]): string {
  const isOnlyModel = name.endsWith(".model") && all.filter((other) => other.endsWith(".model")).length === 1;
  return isOnlyModel ? "tokenizer.model" : name;
}

/** For a SentencePiece model that came without: by this transformers knows its class and its special tokens. */
function tokenizerConfig(tokenizer: Tokenizer): Record<string, unknown> {
  const { bosId, eosId, padId, unkId } = tokenizer;
  const pieceOf = (id: number | undefined): string | null =>
    id === undefined ? null : tokenizer.pieceOf(id);
  return {
    tokenizer_class: "LlamaTokenizer",
    legacy: false,
    add_bos_token: false,
    add_eos_token: false,
    clean_up_tokenization_spaces: false,
    bos_token: pieceOf(bosId),
    eos_token: pieceOf(eosId),
    pad_token: pieceOf(padId),
    unk_token: pieceOf(unkId),
  };
}

/** README.md of the result. */
export function cardText(
  { checkpoint, json }: ConversionSource,
  { card, title }: { card: CardOptions; title: string },
): string {
  return writeModelCard(checkpoint.card, {
    license: card.license,
    baseModel:
      card.baseModel ?? (checkpoint.card?.baseModels.length ? undefined : originOf(checkpoint.path, json)),
    title,
    description:
      `Converted with Nautilus from ${basename(checkpoint.path)} (${checkpoint.kind}). The weights are those of the source; ` +
      "its license and terms of use apply.",
  });
}

/** The repository that a model came from, where its path in the hub's cache or its configuration names one. */
function originOf(path: string, json: Readonly<Record<string, unknown>>): string | undefined {
  const repository = repositoryOf(path);
  if (repository !== undefined) return repository;
  const stored = json["_name_or_path"];
  return typeof stored === "string" && /^[\w.-]+\/[\w.-]+$/.test(stored) ? stored : undefined;
}
