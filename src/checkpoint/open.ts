/**
 * Opens a model of any supported format as what the model families read: Hugging Face's config.json and tensors under its names. The
 * format is told from the contents, not from the name's ending.
 */
import { existsSync, readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { CheckpointError, readJson, withFileErrors } from "../base/index.ts";
import { openFileBytes } from "./bytes.ts";
import { hasWeights, openCheckpointFolder } from "./folder.ts";
import { ggufCard, ggufModel } from "./gguf/huggingFace.ts";
import { ggufTokenizer } from "./gguf/tokenizer.ts";
import { openGguf } from "./gguf/reader.ts";
import { huggingFaceConfig } from "./megatron/config.ts";
import { embeddingName } from "./megatron/names.ts";
import { huggingFaceView, storedVocabSize } from "./megatron/huggingFace.ts";
import { parseModelCard } from "./modelCard.ts";
import type { ModelCard } from "./modelCard.ts";
import { isNemoFolder, openNemo } from "./nemo/open.ts";
import { openSafetensors } from "./safetensors.ts";
import type { StoredDtype, TensorSource } from "./source.ts";
import { openTorchFile } from "./torch/torchFile.ts";

export type CheckpointKind = "hugging-face" | "nemo" | "gguf" | "safetensors" | "torch";

export interface ModelCheckpoint extends Disposable {
  readonly path: string;
  readonly kind: CheckpointKind;
  /** config.json as Hugging Face has it; undefined for a lone file of weights. */
  readonly config: unknown;
  /** Under Hugging Face's names, but for a lone file of weights, which keeps its own. */
  readonly weights: TensorSource;
  /** V, where a format that pads its embedding says how much of it is vocabulary. */
  readonly vocabSize?: number | undefined;
  /** The tokenizer's files and chat templates by name; names may have a folder in them. */
  readonly tokenizerFiles: ReadonlyMap<string, () => Uint8Array>;
  /** What stands in the way of a tokenizer that the format holds. */
  readonly tokenizerReason?: string | undefined;
  /** Further files that belong to the model: generation_config.json, README.md, licenses. */
  readonly otherFiles: ReadonlyMap<string, () => Uint8Array>;
  /** What its card says; undefined where it has none. */
  readonly card: ModelCard | undefined;
}

const torchDtypeNames: Partial<Readonly<Record<StoredDtype, string>>> = {
  f32: "float32",
  bf16: "bfloat16",
  f16: "float16",
};
const tokenizerFileNames =
  /^(tokenizer.*|special_tokens_map\.json|vocab\.(json|txt)|merges\.txt|added_tokens\.json|chat_template\.jinja|additional_chat_templates\/.*\.jinja|.*\.model)$/;
const otherFileNames =
  /^(generation_config\.json|README\.md|(LICEN[CS]E|NOTICE|USE_POLICY|Notice|COPYING)([._-].*)?)$/;

/**
 * Opens `path`: a Hugging Face folder, a `.nemo`, a NeMo or Megatron-LM folder, a GGUF, a safetensors file or a file of torch.save.
 * `vocabSize` drops the padding rows that NeMo and Megatron put after the vocabulary. Throws CheckpointError, ConfigError, FileError.
 */
export async function openCheckpoint(
  path: string,
  options: { vocabSize?: number; temporaryFolder?: string } = {},
): Promise<ModelCheckpoint> {
  if (!existsSync(path) || !statSync(path).isDirectory()) {
    const kind = fileKind(path);
    if (kind === "nemo") return await openNemoModel(path, options);
    return kind === "gguf" ? openGgufModel(path) : loneFile(path, kind);
  }
  if (existsSync(join(path, "config.json")) || !isNemoFolder(path)) return openHuggingFace(path);
  return await openNemoModel(path, options);
}

/** Whether a folder holds a checkpoint of any supported format. Throws FileError. */
export function isCheckpointFolder(folder: string): boolean {
  return existsSync(join(folder, "config.json")) || hasWeights(folder) || isNemoFolder(folder);
}

function fileKind(path: string): Exclude<CheckpointKind, "hugging-face"> {
  using file = openFileBytes(path);
  const head = new Uint8Array(Math.min(file.byteLength, 264));
  file.readInto(head, 0);
  const text = Buffer.from(head).toString("latin1");
  if (text.startsWith("PK\u0003\u0004") || head[0] === 0x80) return "torch";
  if (text.slice(257, 262) === "ustar" || text.startsWith("\u001f\u008b")) return "nemo";
  if (text.startsWith("GGUF")) return "gguf";
  if (text[8] === "{") return "safetensors";
  throw new CheckpointError("checkpoint", `expected a checkpoint at ${path}, got a file of another kind`, {
    hint: "supported are safetensors, .nemo, GGUF, and torch.save's .pt, .bin and .ckpt",
    fields: { path },
  });
}

function loneFile(path: string, kind: "safetensors" | "torch"): ModelCheckpoint {
  const weights = kind === "torch" ? openTorchFile(path).tensors : openSafetensors(path);
  return {
    path,
    kind,
    config: undefined,
    weights,
    ...companions(new Map()),
    [Symbol.dispose]: () => weights.dispose(),
  };
}

/** A model's other files by what they are for. */
function companions(
  files: ReadonlyMap<string, () => Uint8Array>,
): Pick<ModelCheckpoint, "tokenizerFiles" | "otherFiles" | "card"> {
  const named = (pattern: RegExp) => new Map([...files].filter(([name]) => pattern.test(name)));
  const otherFiles = named(otherFileNames);
  const card = otherFiles.get("README.md");
  return {
    tokenizerFiles: named(tokenizerFileNames),
    otherFiles,
    card: card && parseModelCard(new TextDecoder().decode(card())),
  };
}

function openGgufModel(path: string): ModelCheckpoint {
  const file = openGguf(path);
  try {
    const { config, weights } = ggufModel(file);
    const tokenizer = ggufTokenizer(file.metadata);
    return {
      path,
      kind: "gguf",
      config,
      weights,
      ...companions(tokenizer.files),
      tokenizerReason: tokenizer.reason,
      card: ggufCard(file.metadata),
      [Symbol.dispose]: () => weights.dispose(),
    };
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

function openHuggingFace(folder: string): ModelCheckpoint {
  const weights = openCheckpointFolder(folder);
  try {
    const names = [...readdirSync(folder), ...templateNames(folder)];
    const files = new Map(names.map((name) => [name, () => readCompanion(join(folder, name))]));
    const configPath = join(folder, "config.json");
    return {
      path: folder,
      kind: "hugging-face",
      config: existsSync(configPath) ? readJson("checkpoint", configPath) : undefined,
      weights,
      ...companions(files),
      [Symbol.dispose]: () => weights.dispose(),
    };
  } catch (error) {
    weights.dispose();
    throw error;
  }
}

function templateNames(folder: string): string[] {
  const path = join(folder, "additional_chat_templates");
  return existsSync(path) ? readdirSync(path).map((name) => `additional_chat_templates/${name}`) : [];
}

function readCompanion(path: string): Uint8Array {
  return withFileErrors("checkpoint", "a readable file", path, () => readFileSync(path));
}

async function openNemoModel(
  path: string,
  { vocabSize: wanted, temporaryFolder }: { vocabSize?: number; temporaryFolder?: string },
): Promise<ModelCheckpoint> {
  const nemo = await openNemo(path, temporaryFolder === undefined ? {} : { temporaryFolder });
  try {
    const vocabSize = wanted ?? nemo.config.vocabSize;
    const weights = huggingFaceView(nemo.weights, nemo.config, vocabSize === undefined ? {} : { vocabSize });
    const { dtype } = nemo.weights.info(embeddingName);
    const config = huggingFaceConfig(nemo.config, {
      vocabSize: vocabSize ?? storedVocabSize(nemo.weights, nemo.config),
      dtype: torchDtypeNames[dtype] ?? "float32",
    });
    return {
      path,
      kind: "nemo",
      config,
      weights,
      vocabSize: nemo.config.vocabSize,
      ...companions(nemo.tokenizerFiles),
      [Symbol.dispose]: () => weights.dispose(),
    };
  } catch (error) {
    nemo[Symbol.dispose]();
    throw error;
  }
}
