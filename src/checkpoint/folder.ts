/** Hugging Face model folders: one model.safetensors, or shards with model.safetensors.index.json. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { CheckpointError, parseConfig, readJson } from "../base/index.ts";
import { openSafetensors } from "./safetensors.ts";
import { missingTensor } from "./source.ts";
import type { StoredTensorInfo, TensorSource } from "./source.ts";

export const singleFileName = "model.safetensors";
export const indexFileName = "model.safetensors.index.json";

const indexSchema = z.looseObject({ weight_map: z.record(z.string(), z.string().regex(/^[^/\\]+$/)) });

class ShardedFolder implements TensorSource {
  readonly path: string;
  readonly metadata: Readonly<Record<string, string>> = {};
  readonly #shardOf: ReadonlyMap<string, string>;
  readonly #open = new Map<string, TensorSource>();

  constructor(folder: string) {
    this.path = folder;
    const index = parseConfig(
      indexFileName,
      indexSchema,
      readJson("checkpoint", join(folder, indexFileName)),
    );
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
    const opened = openSafetensors(join(this.path, shard));
    this.#open.set(shard, opened);
    return opened;
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

  dispose(): void {
    for (const source of this.#open.values()) source.dispose();
    this.#open.clear();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Opens the weights of a model folder. Throws CheckpointError, FileError. */
export function openCheckpointFolder(folder: string): TensorSource {
  if (existsSync(join(folder, indexFileName))) return new ShardedFolder(folder);
  if (existsSync(join(folder, singleFileName))) return openSafetensors(join(folder, singleFileName));
  throw new CheckpointError(
    "checkpoint",
    `expected ${singleFileName} or ${indexFileName} in ${folder}, got neither`,
    {
      hint: "is it a model folder?",
    },
  );
}
