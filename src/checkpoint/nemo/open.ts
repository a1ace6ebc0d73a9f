/**
 * Checkpoints of NeMo and Megatron-LM, whatever they lie in: a `.nemo` (tar, or gzipped tar as before NeMo 1.7), the same unpacked, a NeMo 2
 * folder (`weights/` and `context/`), a Megatron-LM folder. The weights come out under one spelling (megatron/canonical.ts).
 */
import { createReadStream, createWriteStream, existsSync, readdirSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import {
  CheckpointError,
  fileError,
  formatBytes,
  messageOf,
  readText,
  systemErrorCode,
  withFileErrors,
} from "../../base/index.ts";
import { openFileBytes } from "../bytes.ts";
import { folderTree, readTreeFile, readTreeText, subtree } from "../fileTree.ts";
import type { FileTree } from "../fileTree.ts";
import { canonicalMegatron } from "../megatron/canonical.ts";
import type { MegatronConfig } from "../megatron/config.ts";
import { hasRankFiles, openRanks, plainFields } from "../megatron/ranks.ts";
import type { TensorSource } from "../source.ts";
import { readTar } from "../tar.ts";
import { makeTemporaryFolder } from "../temporary.ts";
import { openTorchDist, torchDistMetadataName } from "../torch/torchDist.ts";
import { readTorchFile } from "../torch/torchFile.ts";
import { openZarr, zarrayName } from "../zarr.ts";
import { readMegatronArguments, readNemo1Config, readNemo2Config } from "./config.ts";
import type { NemoDescription, TokenizerReference } from "./config.ts";

const component = "nemo";

export interface NemoCheckpoint extends Disposable {
  readonly path: string;
  readonly config: MegatronConfig;
  /** Under Megatron-core's names without prefix, one tensor per layer. */
  readonly weights: TensorSource;
  readonly tokenizer: TokenizerReference;
  /** The tokenizer's files by their plain names ("tokenizer.model"). */
  readonly tokenizerFiles: ReadonlyMap<string, () => Uint8Array>;
}

type Release = () => void;

/** What lies at the top of such folders. */
const topNames =
  /^(model_config\.yaml|model_weights(\.ckpt)?|latest_checkpointed_iteration\.txt|\.metadata|(mp|tp)_rank_\d+.*|model_(optim_)?rng\.pt)$/;

/** Whether a folder is one of NeMo's or Megatron's. Throws FileError. */
export function isNemoFolder(folder: string): boolean {
  const names = withFileErrors(component, "a readable folder", folder, () => readdirSync(folder));
  return (
    names.some((name) => topNames.test(name)) || (names.includes("weights") && names.includes("context"))
  );
}

/**
 * Opens a `.nemo` file, or a folder of NeMo or Megatron-LM. A gzipped archive is unpacked to a temporary file first (in
 * `temporaryFolder`, else the system's), which goes away when the checkpoint is disposed. Throws CheckpointError, ConfigError, FileError.
 */
export async function openNemo(
  path: string,
  { temporaryFolder }: { temporaryFolder?: string } = {},
): Promise<NemoCheckpoint> {
  if (existsSync(path) && statSync(path).isDirectory())
    return openTree(folderTree(checkpointFolder(path)), () => {});
  const { file, release } = isGzip(path)
    ? await unpackGzip(path, temporaryFolder)
    : { file: path, release: () => {} };
  try {
    const bytes = openFileBytes(file);
    const releaseAll = (): void => {
      bytes[Symbol.dispose]();
      release();
    };
    try {
      return openTree({ ...readTar(bytes), path }, releaseAll);
    } catch (error) {
      bytes[Symbol.dispose]();
      throw error;
    }
  } catch (error) {
    release();
    throw error;
  }
}

/** Megatron-LM names the newest checkpoint of a run in a file beside its folders. */
function checkpointFolder(folder: string): string {
  const tracker = join(folder, "latest_checkpointed_iteration.txt");
  if (!existsSync(tracker)) return folder;
  const text = readText(component, tracker).trim();
  if (text === "release") return join(folder, text);
  if (/^\d{1,9}$/.test(text)) return join(folder, `iter_${text.padStart(7, "0")}`);
  throw new CheckpointError(
    component,
    `expected an iteration or 'release' in ${tracker}, got '${text.slice(0, 20)}'`,
  );
}

function isGzip(path: string): boolean {
  using bytes = openFileBytes(path);
  if (bytes.byteLength < 2) return false;
  const head = new Uint8Array(2);
  bytes.readInto(head, 0);
  return head[0] === 0x1f && head[1] === 0x8b;
}

/** Weights hardly shrink: an archive that grows beyond this is made to fill the disk. */
const largestGrowth = 100;
const alwaysAllowedBytes = 1 << 26;

async function unpackGzip(
  path: string,
  parent: string | undefined,
): Promise<{ file: string; release: Release }> {
  const folder = makeTemporaryFolder(parent);
  const file = join(folder.path, `${basename(path)}.tar`);
  const limitBytes = Math.max(alwaysAllowedBytes, largestGrowth * statSync(path).size);
  let numBytes = 0;
  const limit = new Transform({
    transform(piece: Buffer, _, done) {
      numBytes += piece.byteLength;
      done(
        numBytes > limitBytes ? broken(path, `one that unpacks beyond ${formatBytes(limitBytes)}`) : null,
        piece,
      );
    },
  });
  try {
    await pipeline(createReadStream(path), createGunzip(), limit, createWriteStream(file));
  } catch (error) {
    folder[Symbol.dispose]();
    if (error instanceof CheckpointError) throw error;
    const code = systemErrorCode(error) ?? "";
    if (code.startsWith("Z_")) throw broken(path, `a broken one (${messageOf(error)})`);
    throw fileError(component, `room to unpack ${path}`, file, error);
  }
  return { file, release: () => folder[Symbol.dispose]() };
}

function broken(path: string, got: string): CheckpointError {
  return new CheckpointError(component, `expected a gzipped archive at ${path}, got ${got}`, {
    hint: "download or save it again",
    fields: { path },
  });
}

function openTree(tree: FileTree, release: Release): NemoCheckpoint {
  const opened = openWeights(tree, release);
  try {
    const { config, tokenizer } = describeModel(tree, opened.args);
    const tokenizerFiles = findTokenizerFiles(tree, tokenizer);
    const { weights } = opened;
    return {
      path: tree.path,
      config,
      weights,
      tokenizer,
      tokenizerFiles,
      [Symbol.dispose]: () => weights.dispose(),
    };
  } catch (error) {
    opened.weights.dispose();
    throw error;
  }
}

interface OpenedWeights {
  readonly weights: TensorSource;
  readonly args: Readonly<Record<string, unknown>> | undefined;
}

/** Distributed checkpoints lie in a folder of their own (NeMo) or at the top (Megatron-LM); rank files at the top. */
function openWeights(tree: FileTree, release: Release): OpenedWeights {
  for (const folder of ["model_weights", "weights", ""]) {
    const part = folder === "" ? tree : subtree(tree, folder);
    if (part.has(torchDistMetadataName)) {
      return { weights: canonicalMegatron(openTorchDist(part, { release })), args: commonArguments(part) };
    }
    if (part.files.some((file) => file.endsWith(`/${zarrayName}`))) {
      return { weights: canonicalMegatron(openZarr(part, { release })), args: commonArguments(part) };
    }
    if (hasRankFiles(part)) return openRanks(part, { release });
  }
  throw new CheckpointError(component, `expected weights of NeMo or Megatron in ${tree.path}, got none`, {
    hint: "there is neither model_weights, weights, model_weights.ckpt nor mp_rank_00",
    fields: { path: tree.path },
  });
}

/** What a distributed checkpoint saved beside its tensors, as far as it names the model's arguments. */
function commonArguments(tree: FileTree): OpenedWeights["args"] {
  if (!tree.has("common.pt")) return undefined;
  using bytes = tree.open("common.pt");
  const { root } = readTorchFile(bytes);
  return plainFields(root instanceof Map ? root.get("args") : undefined);
}

function describeModel(tree: FileTree, args: OpenedWeights["args"]): NemoDescription {
  if (tree.has("model_config.yaml")) return readNemo1Config(readTreeText(tree, "model_config.yaml"));
  if (tree.has("context/model.yaml")) return readNemo2Config(readTreeText(tree, "context/model.yaml"));
  if (args !== undefined) {
    return { config: readMegatronArguments(args), tokenizer: { library: undefined, files: [] } };
  }
  throw new CheckpointError(
    component,
    `expected model_config.yaml, context/model.yaml or saved arguments in ${tree.path}, got none`,
    { hint: "weights alone do not tell the model's heads and norms" },
  );
}

function findTokenizerFiles(
  tree: FileTree,
  tokenizer: TokenizerReference,
): ReadonlyMap<string, () => Uint8Array> {
  const found = new Map<string, () => Uint8Array>();
  for (const reference of tokenizer.files) {
    for (const base of ["", "context/"]) {
      const exact = `${base}${reference}`;
      const files = tree.has(exact) ? [exact] : tree.files.filter((file) => file.startsWith(`${exact}/`));
      for (const file of files) found.set(plainName(file), () => readTreeFile(tree, file));
    }
  }
  return found;
}

/** NeMo 1 puts 32 hexadecimal digits before the names of artefacts. */
function plainName(file: string): string {
  return basename(file).replace(/^[0-9a-f]{32}_/, "");
}
