/** Finds and opens what `--model` names: a run, one of its checkpoints, or a checkpoint of any supported format. */
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import {
  CheckpointError,
  ConfigError,
  formatBytes,
  note,
  OutOfMemoryError,
  readJson,
  warn,
} from "../../base/index.ts";
import {
  findCachedModel,
  hubSettings,
  isCheckpointFolder,
  isModelName,
  observedView,
  openCheckpoint,
} from "../../checkpoint/index.ts";
import type { ModelCheckpoint, TensorSource } from "../../checkpoint/index.ts";
import { isPacked } from "../../device/index.ts";
import type { Device } from "../../device/index.ts";
import {
  checkpointConfig,
  loadCheckpointModel,
  mapCheckpointWeights,
  servingMemory,
} from "../../models/index.ts";
import type { Decoder, DecoderConfig } from "../../models/index.ts";
import type { Context, QuantisedFormat } from "../../tensor/index.ts";
import { loadTokenizer } from "../../text/index.ts";
import type { Tokenizer } from "../../text/index.ts";
import { listCheckpoints } from "../../train/index.ts";
import { ProgressLine } from "../terminal/progress.ts";
import { findAdapterFolder } from "./adapter/find.ts";
import { tokenizerFolder } from "./tokenizerFolder.ts";

export interface OpenModel extends Disposable {
  /** What was opened: a folder or a file. */
  path: string;
  /**
   * Where the tokenizer's files, the chat templates and generation_config.json are: the model's own folder, or for formats that are
   * one file a temporary one that lasts until this is disposed.
   */
  folder: string;
  decoder: Decoder;
  tokenizer: Tokenizer;
}

export interface OpenModelOptions {
  /** dtype of the weights on the device; by default what the checkpoint has, 16-bit floats as bf16. */
  precision?: "f32" | "bf16" | undefined;
  /** Holds the blocks' matrices in 8 or 4 bits; with fp8 their products' inputs too. */
  quantise?: QuantisedFormat | undefined;
  /** A tokenizer's file or folder, for checkpoints that hold none. */
  tokenizer?: string | undefined;
  /** Takes weights from where their files have them, without a copy, where device and format can. They can only be read. Default false. */
  mmap?: boolean | undefined;
}

/**
 * The model behind a path: the newest checkpoint of a run, a checkpoint's model, the path itself; or, where nothing lies there, the
 * pulled model of that name (`org/name`, `org/name@revision`). Throws CheckpointError.
 */
export function findModel(path: string): string {
  const newest = listCheckpoints(path).at(-1)?.path;
  const folders = [...(newest === undefined ? [] : [join(newest, "model")]), join(path, "model")];
  const found = folders.find((folder) => existsSync(join(folder, "config.json")));
  if (found !== undefined) return found;
  const exists = existsSync(path);
  const isModel = exists && (!statSync(path).isDirectory() || isCheckpointFolder(path));
  if (isModel) return path;
  const pulled = exists ? undefined : pulledModel(path);
  if (pulled !== undefined) return pulled;
  throw noModel(path, exists);
}

/** What else lies at `path`, and what to do about it. */
function noModel(path: string, exists: boolean): CheckpointError {
  const wanted = `expected a run, a checkpoint or a model at ${path}`;
  const adapter = exists ? findAdapterFolder(path) : undefined;
  if (adapter !== undefined) {
    return new CheckpointError("model", `${wanted}, got an adapter`, {
      hint: `name its base with --model and it with --adapter; 'nautilus adapter inspect ${path}' shows it, 'nautilus adapter merge ${path}' makes it a model`,
    });
  }
  const within = exists ? modelsWithin(path) : [];
  if (within.length > 0)
    return new CheckpointError("model", `${wanted}, got a folder of such`, {
      hint: `did you mean ${within.slice(0, 3).join(", ")}?`,
    });
  const pull = isModelName(path) && !exists ? `fetch it with 'nautilus pull ${path}', or ` : "";
  return new CheckpointError("model", `${wanted}, got ${exists ? "none of them" : "nothing there"}`, {
    hint: `${pull}train one with 'nautilus train' or 'nautilus demo'`,
  });
}

/** The models and runs among a folder's own entries. */
function modelsWithin(folder: string): string[] {
  if (!statSync(folder).isDirectory()) return [];
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => join(folder, name))
    .filter((path) => listCheckpoints(path).length > 0 || isCheckpointFolder(path))
    .filter((path) => findAdapterFolder(path) === undefined)
    .toSorted();
}

/** What the hub's cache has under a name: the snapshot's folder, or its one file where the model is a .nemo or a GGUF. */
function pulledModel(name: string): string | undefined {
  const folder = findCachedModel(name, hubSettings().cacheFolder)?.folder;
  if (folder === undefined || existsSync(join(folder, "config.json"))) return folder;
  const files = readdirSync(folder).filter((file) => /\.(?:nemo|gguf)$/.test(file));
  return files.length === 1 ? join(folder, files[0]) : folder;
}

/**
 * Opens model and tokenizer. Throws CheckpointError, ConfigError, TokenizerError, OutOfMemoryError; also when the tokenizer has more
 * tokens than the model.
 */
export async function openModel(
  context: Context,
  path: string,
  { precision, quantise, tokenizer: tokenizerPath, mmap = false }: OpenModelOptions = {},
): Promise<OpenModel> {
  using checkpoint = await openCheckpoint(findModel(path));
  const files = tokenizerFolder(checkpoint, tokenizerPath);
  try {
    const tokenizer = loadTokenizer(files.tokenizerPath);
    const config = checkpointConfig(checkpoint);
    const dtype = precision ?? storedPrecision(checkpoint);
    expectVocabulary(config, tokenizer, path);
    if (config.positionLimit !== undefined)
      note(`${path}: up to ${config.maxPositions} tokens, because ${config.positionLimit}`);
    const source = { ...checkpoint, weights: showingProgress(checkpoint.weights) };
    using mapped = mmap ? mapCheckpointWeights(context, source, { dtype, quantise }) : undefined;
    const mappedBytes = mapped?.byteLength ?? 0;
    expectRoom(context.device, config, { dtype, quantise, path, mappedBytes });
    const decoder = loadCheckpointModel(context, source, { dtype, quantise, mapped });
    if (mappedBytes >= quickBytes) noteMapped(path, { mappedBytes, weights: checkpoint.weights });
    const dispose = (): void => {
      decoder.dispose();
      files[Symbol.dispose]();
    };
    return { path: checkpoint.path, folder: files.folder, decoder, tokenizer, [Symbol.dispose]: dispose };
  } catch (error) {
    files[Symbol.dispose]();
    throw error;
  }
}

function storedPrecision({ weights }: ModelCheckpoint): "f32" | "bf16" {
  for (const name of weights.names()) return weights.info(name).dtype === "f32" ? "f32" : "bf16";
  return "f32";
}

/**
 * Before anything is allocated: a machine without the room would swap, or end the process without a word. Mapped weights need none, and
 * are read again and again where there is none.
 */
function expectRoom(
  device: Device,
  config: DecoderConfig,
  {
    dtype,
    quantise,
    path,
    mappedBytes,
  }: { dtype: "f32" | "bf16"; quantise: QuantisedFormat | undefined; path: string; mappedBytes: number },
): void {
  const { freeBytes, reservedBytes, liveBytes } = device.memory();
  if (freeBytes === undefined) return;
  const weightBytes = servingMemory(config, dtype, 0, quantise);
  const [neededBytes, availableBytes] = [weightBytes - mappedBytes, freeBytes + reservedBytes - liveBytes];
  if (neededBytes <= availableBytes) {
    if (weightBytes > availableBytes) {
      warn(
        `expected ${formatBytes(weightBytes)} of memory for the weights of ${path}, got ${formatBytes(availableBytes)}: they are read from the disk as they are needed, over and over, which is slow`,
      );
    }
    return;
  }
  throw new OutOfMemoryError(
    "model",
    `expected ${formatBytes(neededBytes)} of memory for the weights of ${path} in ${quantise ?? dtype}, got ${formatBytes(availableBytes)}`,
    {
      hint: lessMemory(dtype, quantise),
      fields: { neededBytes, availableBytes },
    },
  );
}

/** What would make weights that are held so smaller. */
function lessMemory(dtype: "f32" | "bf16", quantise: QuantisedFormat | undefined): string {
  if (dtype === "f32") return "halve it with --precision bf16";
  if (quantise === undefined) return "quarter it with --quantise nf4";
  return isPacked(quantise)
    ? "take a smaller model, or a device with more memory"
    : "lower it with --quantise nf4";
}

/** Models that are there in a second or two need no bar. */
const quickBytes = 1 << 30;

/** What the model's memory is: other tools count the one as cache and the other as the process's own. */
function noteMapped(
  path: string,
  { mappedBytes, weights }: { mappedBytes: number; weights: TensorSource },
): void {
  const readBytes = storedBytes(weights) - mappedBytes;
  note(
    `${path}: ${formatBytes(mappedBytes)} of weights mapped from ${weights.path}, ${formatBytes(readBytes)} read`,
  );
}

function storedBytes(weights: TensorSource): number {
  return [...weights.names()].reduce((total, name) => total + weights.info(name).byteLength, 0);
}

/** The weights, with a bar that moves as they are read. */
function showingProgress(weights: TensorSource): TensorSource {
  const totalBytes = storedBytes(weights);
  if (totalBytes < quickBytes) return weights;
  const progress = new ProgressLine();
  let doneBytes = 0;
  return observedView(weights, (_, byteLength) => {
    doneBytes += byteLength;
    progress.update(
      "loading",
      doneBytes / totalBytes,
      `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`,
    );
    if (doneBytes >= totalBytes) progress.clear();
  });
}

/** A token without a row in the embedding would be read from beyond its end. */
function expectVocabulary(config: DecoderConfig, tokenizer: Tokenizer, path: string): void {
  if (tokenizer.vocabSize <= config.vocabSize) return;
  throw new ConfigError(
    "model",
    `expected a tokenizer of at most the ${config.vocabSize} tokens of ${path}, got one of ${tokenizer.vocabSize}`,
    { hint: "the tokenizer is of another model" },
  );
}

/** The model's ends of text: the tokenizer's, and those of generation_config.json and config.json. */
export function endTokens(folder: string, tokenizer: Tokenizer): number[] {
  const ends = new Set([tokenizer.eosId]);
  for (const name of ["generation_config.json", "config.json"]) {
    const path = join(folder, name);
    if (!existsSync(path)) continue;
    const json = readJson("model", path);
    const eos: unknown =
      typeof json === "object" && json !== null && "eos_token_id" in json ? json.eos_token_id : undefined;
    for (const id of Array.isArray(eos) ? eos : [eos]) if (typeof id === "number") ends.add(id);
  }
  return [...ends];
}
