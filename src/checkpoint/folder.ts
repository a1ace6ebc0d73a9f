/**
 * Model folders as Hugging Face has them: one weights file, or shards with an index of which tensor lies in which. Shards are opened
 * when first asked for. Written as safetensors with the names, sizes and index of `save_pretrained`.
 */
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import {
  CheckpointError,
  makeFolder,
  numElements,
  parseConfig,
  readJson,
  withFileErrors,
  writeText,
} from "../base/index.ts";
import type { FileRange } from "../base/index.ts";
import { openSafetensors, writeSafetensors } from "./safetensors.ts";
import type { TensorHeader, WriteOptions } from "./safetensors.ts";
import { openTorchFile } from "./torch/torchFile.ts";
import { missingTensor, storedByteLength } from "./source.ts";
import type { StoredTensorInfo, TensorSource } from "./source.ts";

const component = "checkpoint";
export const singleFileName = "model.safetensors";
export const indexFileName = "model.safetensors.index.json";
/** What `save_pretrained` has cut at for years ("5GB", decimal). */
export const defaultShardBytes = 5_000_000_000;
const torchFileName = "pytorch_model.bin";
const torchIndexName = "pytorch_model.bin.index.json";
const shardNamePattern = /^model-\d{5}-of-\d{5}\.safetensors$/;

/** A shard is a file of the folder itself, whatever the index says. */
const shardName = z.string().regex(/^[^/\\]+$/, "a file name without a folder");
const indexSchema = z.looseObject({ weight_map: z.record(z.string(), shardName) });

class ShardedFolder implements TensorSource {
  readonly path: string;
  readonly metadata: Readonly<Record<string, string>> = {};
  readonly #shardOf: ReadonlyMap<string, string>;
  readonly #open = new Map<string, TensorSource>();

  constructor(folder: string, indexName: string) {
    this.path = folder;
    const index = parseConfig(indexName, indexSchema, readJson(component, join(folder, indexName)));
    this.#shardOf = new Map(Object.entries(index.weight_map));
  }

  names(): Iterable<string> {
    return this.#shardOf.keys();
  }

  has(name: string): boolean {
    return this.#shardOf.has(name);
  }

  #source(name: string): TensorSource {
    const shard = this.#shardOf.get(name);
    if (shard === undefined) throw missingTensor(this.path, name, this.names());
    const existing = this.#open.get(shard);
    if (existing !== undefined) return existing;
    const opened = openWeights(join(this.path, shard));
    // Before it is looked at: a shard that is refused is closed with the others.
    this.#open.set(shard, opened);
    this.#expectOnce(shard, opened.names());
    return opened;
  }

  /** A tensor that lies in a shard and in another by the index: which of the two is meant cannot be known. */
  #expectOnce(shard: string, names: Iterable<string>): void {
    for (const name of names) {
      const indexed = this.#shardOf.get(name) ?? shard;
      if (indexed === shard) continue;
      throw new CheckpointError(
        component,
        `expected one tensor '${name}' in ${this.path}, got one in ${shard} besides that in ${indexed}`,
        { hint: "shards of different saves lie in one folder", fields: { name } },
      );
    }
  }

  info(name: string): StoredTensorInfo {
    return this.#source(name).info(name);
  }

  read(name: string): Uint8Array<ArrayBuffer> {
    return this.#source(name).read(name);
  }

  readInto(name: string, into: Uint8Array, byteOffset?: number): void {
    this.#source(name).readInto(name, into, byteOffset);
  }

  fileRange(name: string): FileRange | undefined {
    return this.#source(name).fileRange?.(name);
  }

  dispose(): void {
    for (const source of this.#open.values()) source.dispose();
    this.#open.clear();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function openWeights(path: string): TensorSource {
  return path.endsWith(".bin") ? openTorchFile(path).tensors : openSafetensors(path);
}

/** Whether a folder holds weights as Hugging Face has them. */
export function hasWeights(folder: string): boolean {
  const names = [singleFileName, indexFileName, torchFileName, torchIndexName];
  return names.some((name) => existsSync(join(folder, name)));
}

/**
 * Opens the weights of a model folder: safetensors, else PyTorch files, in transformers' order of preference.
 * Throws CheckpointError, FileError.
 */
export function openCheckpointFolder(folder: string): TensorSource {
  for (const [single, index] of [
    [singleFileName, indexFileName],
    [torchFileName, torchIndexName],
  ]) {
    if (existsSync(join(folder, single))) return openWeights(join(folder, single));
    if (existsSync(join(folder, index))) return new ShardedFolder(folder, index);
  }
  throw new CheckpointError(
    component,
    `expected ${singleFileName} or ${indexFileName} in ${folder}, got neither`,
    { hint: "is it a model folder?", fields: { folder } },
  );
}

/**
 * Writes the weights of a model folder: one file when they fit in `maxShardBytes`, else shards and their index. A tensor is never cut. The
 * index comes last, and weights of an earlier save are removed after it: a reader sees the old model or the new one.
 * Gives the names of the files. Throws FileError.
 */
export function writeCheckpointFolder(
  folder: string,
  headers: readonly TensorHeader[],
  { maxShardBytes = defaultShardBytes, ...options }: WriteOptions & { maxShardBytes?: number },
): string[] {
  makeFolder(component, folder);
  const shards = splitIntoShards(headers, maxShardBytes);
  if (shards.length === 1) {
    writeSafetensors(join(folder, singleFileName), shards[0], options);
    removeOthers(folder, [singleFileName]);
    return [singleFileName];
  }
  const number = (value: number): string => String(value).padStart(5, "0");
  const files = shards.map((_, i) => `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`);
  for (const [i, shard] of shards.entries()) writeSafetensors(join(folder, files[i]), shard, options);
  const weightMap = shards.flatMap((shard, i) => shard.map(({ name }) => [name, files[i]] as const));
  const index = {
    metadata: {
      total_parameters: headers.reduce((sum, { shape }) => sum + numElements(shape), 0),
      total_size: headers.reduce((sum, header) => sum + headerBytes(header), 0),
    },
    weight_map: Object.fromEntries(weightMap.toSorted(([a], [b]) => (a < b ? -1 : 1))),
  };
  writeText(component, join(folder, indexFileName), `${JSON.stringify(index, undefined, 2)}\n`);
  removeOthers(folder, [...files, indexFileName]);
  return [...files, indexFileName];
}

function headerBytes({ dtype, shape }: TensorHeader): number {
  return storedByteLength(dtype, shape);
}

function splitIntoShards(headers: readonly TensorHeader[], maxShardBytes: number): TensorHeader[][] {
  const shards: TensorHeader[][] = [[]];
  let numBytes = 0;
  for (const header of headers) {
    const byteLength = headerBytes(header);
    if (numBytes + byteLength > maxShardBytes && numBytes > 0) {
      shards.push([]);
      numBytes = 0;
    }
    shards[shards.length - 1].push(header);
    numBytes += byteLength;
  }
  return shards;
}

function removeOthers(folder: string, kept: readonly string[]): void {
  withFileErrors(component, "a writable folder", folder, () => {
    for (const name of readdirSync(folder)) {
      const isWeights = name === singleFileName || name === indexFileName || shardNamePattern.test(name);
      if (isWeights && !kept.includes(name)) rmSync(join(folder, name));
    }
  });
}
