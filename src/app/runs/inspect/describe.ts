/** What a checkpoint is, as data: read from headers and small files, never from weights. */
import { basename } from "node:path";
import {
  CheckpointError,
  ConfigError,
  NautilusError,
  messageOf,
  numElements,
  readJson,
} from "../../../base/index.ts";
import { openCheckpoint, openGguf, openNemo } from "../../../checkpoint/index.ts";
import type { ModelCheckpoint, TensorSource } from "../../../checkpoint/index.ts";
import { modelTensors, parseModelConfig } from "../../../models/index.ts";
import type { DecoderConfig } from "../../../models/index.ts";
import { BpeTokenizer, loadTokenizer, SentencePieceTokenizer } from "../../../text/index.ts";
import type { Tokenizer } from "../../../text/index.ts";
import { tokenizerFolder } from "../tokenizerFolder.ts";

export interface TensorDescription {
  name: string;
  dtype: string;
  shape: readonly number[];
  bytes: number;
}

export interface TokenizerDescription {
  kind: string;
  vocabSize: number;
  files: readonly string[];
  specialTokens: readonly string[];
  bosId: number | null;
  eosId: number;
  padId: number | null;
}

export interface Inspection {
  path: string;
  /** "hugging-face", "nemo", "gguf", "safetensors", "torch"; "configuration" and "tokenizer" of a lone file. */
  format: string;
  /** Nautilus can run it; otherwise why not. */
  isSupported: boolean;
  reason: string | null;
  /** As Nautilus understands it; null where it does not. */
  model: DecoderConfig | null;
  /** As the file has it. */
  config: unknown;
  tokenizer: TokenizerDescription | null;
  /** Why the tokenizer's files could not be read. */
  tokenizerReason: string | null;
  license: { name: string | null; link: string | null };
  baseModels: readonly string[];
  files: readonly string[];
  metadata: Readonly<Record<string, string>>;
  parameters: number;
  bytes: number;
  tensors: readonly TensorDescription[];
}

/** Throws CheckpointError, FileError for what is no checkpoint at all. */
export async function describeCheckpoint(path: string): Promise<Inspection> {
  let checkpoint: ModelCheckpoint;
  try {
    checkpoint = await openCheckpoint(path);
  } catch (error) {
    if (error instanceof ConfigError || error instanceof CheckpointError)
      return await describeForeign(path, error);
    throw error;
  }
  using opened = checkpoint;
  const { model, reason } = understand(opened);
  const { card, tokenizerFiles, otherFiles } = opened;
  return {
    path,
    format: opened.kind,
    isSupported: model !== undefined && reason === undefined,
    reason: reason ?? null,
    model: model ?? null,
    config: opened.config ?? null,
    ...describeTokenizer(opened),
    license: { name: card?.licenseName ?? card?.license ?? null, link: card?.licenseLink ?? null },
    baseModels: card?.baseModels ?? [],
    files: [...tokenizerFiles.keys(), ...otherFiles.keys()].toSorted(),
    ...describeTensors(opened.weights),
  };
}

/** A model that no family of ours computes still has tensors and a description. */
async function describeForeign(path: string, reason: unknown): Promise<Inspection> {
  const unknown = {
    path,
    isSupported: false,
    reason: messageOf(reason),
    model: null,
    tokenizer: null,
    tokenizerReason: null,
    license: { name: null, link: null },
    baseModels: [],
  };
  try {
    using nemo = await openNemo(path);
    const files = [...nemo.tokenizerFiles.keys()].toSorted();
    return { ...unknown, format: "nemo", config: nemo.config, files, ...describeTensors(nemo.weights) };
  } catch {
    // Not of NeMo; the first reason is the one to show.
  }
  try {
    using gguf = openGguf(path);
    // Vocabularies are longer than all the rest together.
    const config = Object.fromEntries([...gguf.metadata].filter(([, value]) => !Array.isArray(value)));
    return { ...unknown, format: "gguf", config, files: [], ...describeTensors(gguf.tensors) };
  } catch {
    // Not that either.
  }
  return describeSmallFile(path, unknown) ?? raise(reason);
}

function raise(reason: unknown): never {
  throw reason;
}

type Unknown = Omit<
  Inspection,
  "format" | "config" | "files" | "metadata" | "parameters" | "bytes" | "tensors"
>;

/** A config.json or a tokenizer by itself; undefined for other files. */
function describeSmallFile(path: string, unknown: Unknown): Inspection | undefined {
  const nothing = { files: [], metadata: {}, parameters: 0, bytes: 0, tensors: [] };
  try {
    const config = path.endsWith(".json") ? readJson("inspect", path) : undefined;
    if (typeof config === "object" && config !== null && "model_type" in config) {
      return { ...unknown, ...nothing, format: "configuration", ...understandConfig(config), config };
    }
    const tokenizer = describeLoaded(loadTokenizer(path), [basename(path)]);
    return { ...unknown, ...nothing, format: "tokenizer", reason: null, config: null, tokenizer };
  } catch (error) {
    if (error instanceof NautilusError) return undefined;
    throw error;
  }
}

function understandConfig(config: object): Pick<Inspection, "model" | "isSupported" | "reason"> {
  try {
    return { model: parseModelConfig(config), isSupported: true, reason: null };
  } catch (error) {
    if (error instanceof ConfigError) return { model: null, isSupported: false, reason: error.message };
    throw error;
  }
}

function understand({ config, weights }: ModelCheckpoint): {
  model: DecoderConfig | undefined;
  reason: string | undefined;
} {
  if (config === undefined) return { model: undefined, reason: "weights alone, without a configuration" };
  let model: DecoderConfig | undefined;
  try {
    model = parseModelConfig(config);
    modelTensors(model, weights);
    return { model, reason: undefined };
  } catch (error) {
    if (error instanceof ConfigError || error instanceof CheckpointError)
      return { model, reason: error.message };
    throw error;
  }
}

function describeTokenizer(checkpoint: ModelCheckpoint): Pick<Inspection, "tokenizer" | "tokenizerReason"> {
  if (checkpoint.tokenizerFiles.size === 0)
    return { tokenizer: null, tokenizerReason: checkpoint.tokenizerReason ?? null };
  try {
    using folder = tokenizerFolder(checkpoint, undefined);
    const tokenizer = loadTokenizer(folder.tokenizerPath);
    const description = describeLoaded(tokenizer, [...checkpoint.tokenizerFiles.keys()]);
    return { tokenizer: description, tokenizerReason: null };
  } catch (error) {
    if (error instanceof NautilusError) return { tokenizer: null, tokenizerReason: error.message };
    throw error;
  }
}

function describeLoaded(tokenizer: Tokenizer, files: readonly string[]): TokenizerDescription {
  return {
    kind: tokenizerKind(tokenizer),
    vocabSize: tokenizer.vocabSize,
    files,
    specialTokens: [...tokenizer.specialTokens.keys()],
    bosId: tokenizer.bosId ?? null,
    eosId: tokenizer.eosId,
    padId: tokenizer.padId ?? null,
  };
}

function tokenizerKind(tokenizer: Tokenizer): string {
  if (tokenizer instanceof SentencePieceTokenizer) return "SentencePiece";
  return tokenizer instanceof BpeTokenizer ? "byte-level BPE" : "tokenizer.json";
}

function describeTensors(
  weights: TensorSource,
): Pick<Inspection, "tensors" | "metadata" | "parameters" | "bytes"> {
  const tensors = [...weights.names()].map((name): TensorDescription => {
    const { dtype, shape, byteLength } = weights.info(name);
    return { name, dtype, shape, bytes: byteLength };
  });
  return {
    tensors,
    metadata: weights.metadata,
    parameters: tensors.reduce((total, { shape }) => total + numElements(shape), 0),
    bytes: tensors.reduce((total, { bytes }) => total + bytes, 0),
  };
}
