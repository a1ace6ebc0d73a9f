/**
 * Files of `torch.save` (.pt, .bin, .ckpt): the zip format of PyTorch 1.6 and later, and the legacy stream of pickles before it
 * (torch/serialization.py). The pickle is read by the restricted reader; tensors are read from their storages when asked for, views and
 * transposes included.
 */
import { CheckpointError } from "../../base/index.ts";
import { openFileBytes, partOf } from "../bytes.ts";
import type { ByteSource } from "../bytes.ts";
import { storedByteLength, storedDtypeBytes, tensorTable } from "../source.ts";
import type { StoredTensor, TensorSource } from "../source.ts";
import { looksLikeZip, openZip } from "../zip.ts";
import { readPickle } from "./pickle.ts";
import type { PickleRules } from "./pickleValues.ts";
import { ByteCursor } from "../cursor.ts";
import { gatherStrided, isContiguous } from "./strided.ts";
import { TorchStorage, torchRules, TorchTensor } from "./values.ts";

export interface TorchFile extends Disposable {
  /** Every tensor below the root, named by the path to it: keys and indices joined with dots. */
  readonly tensors: TensorSource;
  /** What was saved, as the pickle reader gives it, with TorchTensor in the place of tensors. */
  readonly root: unknown;
}

/** Where a storage's bytes lie. */
type StorageOpener = (storage: TorchStorage) => ByteSource;

/** Opens a file of torch.save. Throws CheckpointError, FileError. */
export function openTorchFile(path: string): TorchFile {
  const file = openFileBytes(path);
  try {
    return readTorchFile(file, { release: () => file[Symbol.dispose]() });
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

/** The same over bytes that are open already, such as a member of an archive. */
export function readTorchFile(
  bytes: ByteSource,
  { release = () => {} }: { release?: () => void } = {},
): TorchFile {
  const { root, open } = looksLikeZip(bytes) ? readZipFormat(bytes) : readLegacyFormat(bytes);
  const tensors = tensorTable(bytes.path, tableOf(bytes.path, root, open), { release });
  return { tensors, root, [Symbol.dispose]: () => tensors.dispose() };
}

function broken(path: string, got: string, hint = "download or save it again"): CheckpointError {
  return new CheckpointError("torch", `expected a whole file of torch.save at ${path}, got ${got}`, {
    hint,
    fields: { path },
  });
}

function readZipFormat(bytes: ByteSource): { root: unknown; open: StorageOpener } {
  const { path } = bytes;
  const zip = openZip(bytes);
  const pickleName = [...zip.names()].find((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickleName === undefined) throw broken(path, "a zip archive without data.pkl");
  const folder = pickleName.slice(0, -"data.pkl".length);
  if (zip.has(`${folder}constants.pkl`)) {
    throw broken(path, "a TorchScript program", "save the model's state_dict with torch.save instead");
  }
  if (zip.has(`${folder}byteorder`)) {
    const order = zip.open(`${folder}byteorder`);
    const text = new Uint8Array(Math.min(order.byteLength, 8));
    order.readInto(text, 0);
    if (new TextDecoder().decode(text) !== "little") throw broken(path, "big-endian storages");
  }
  const rules = torchRules(path);
  const root = readPickle(new ByteCursor(zip.open(pickleName), "pickle"), rules);
  return { root, open: ({ key }) => zip.open(`${folder}data/${key}`) };
}

const legacyMagic = 0x1950a86a20f9469cfc6cn;
const legacyVersion = 1001;
const protocolOpcode = 0x80;

function readLegacyFormat(bytes: ByteSource): { root: unknown; open: StorageOpener } {
  const { path } = bytes;
  const head = new Uint8Array(Math.min(1, bytes.byteLength));
  bytes.readInto(head, 0);
  if (head[0] !== protocolOpcode) throw broken(path, "neither a zip archive nor a pickle");
  const storages = new Map<string, TorchStorage>();
  const base = torchRules(path);
  const rules: PickleRules = {
    ...base,
    persistent(id) {
      const storage = base.persistent?.(id);
      if (storage instanceof TorchStorage) storages.set(storage.key, storage);
      return storage;
    },
  };
  const input = new ByteCursor(bytes, "pickle");
  if (readPickle(input, rules) !== legacyMagic) throw broken(path, "a pickle of something else");
  const version = readPickle(input, rules);
  if (version !== legacyVersion) throw broken(path, `format version ${String(version)}`);
  const system = readPickle(input, rules);
  if (system instanceof Map && system.get("little_endian") === false)
    throw broken(path, "big-endian storages");
  const root = readPickle(input, rules);
  const keys = readPickle(input, rules);
  if (!Array.isArray(keys)) throw broken(path, "no list of storages");
  const parts = new Map<string, ByteSource>();
  let at = input.position;
  for (const key of keys as readonly unknown[]) {
    const storage = typeof key === "string" ? storages.get(key) : undefined;
    if (storage === undefined) throw broken(path, `a storage ${String(key)} that no tensor uses`);
    const byteLength = storageBytes(storage);
    // Each storage is preceded by its number of elements, which the pickle has told already.
    parts.set(storage.key, partOf(bytes, { path: `${path}:${storage.key}`, start: at + 8, byteLength }));
    at += 8 + byteLength;
  }
  const open: StorageOpener = ({ key }) => {
    const part = parts.get(key);
    if (part === undefined) throw broken(path, `no storage ${key}`);
    return part;
  };
  return { root, open };
}

function storageBytes({ dtype, numElements }: TorchStorage): number {
  return numElements * (dtype === undefined ? 1 : storedDtypeBytes[dtype]);
}

/** Deeper or wider than any state dict; a small pickle can describe a tree that has no end. */
const maxDepth = 64;
const maxVisits = 1_000_000;

function tableOf(path: string, root: unknown, open: StorageOpener): Map<string, StoredTensor> {
  const table = new Map<string, StoredTensor>();
  const sources = new Map<string, ByteSource>();
  const opened: StorageOpener = (storage) => {
    const source = sources.get(storage.key) ?? open(storage);
    sources.set(storage.key, source);
    return source;
  };
  let numVisits = 0;
  const visit = (value: unknown, name: string, depth: number): void => {
    if (++numVisits > maxVisits || depth > maxDepth) throw broken(path, "containers without an end");
    if (value instanceof TorchTensor) {
      if (table.has(name)) throw broken(path, `two tensors named '${name}'`);
      table.set(name, storedTensor(path, value, { name, open: opened }));
    } else if (value instanceof Map || Array.isArray(value)) {
      const prefix = depth === 0 ? "" : `${name}.`;
      for (const [key, item] of value.entries()) visit(item, `${prefix}${String(key)}`, depth + 1);
    }
  };
  visit(root, "", 0);
  return table;
}

function storedTensor(
  path: string,
  tensor: TorchTensor,
  { name, open }: { name: string; open: StorageOpener },
): StoredTensor {
  const { dtype, shape, strides, storage } = tensor;
  const itemBytes = storedDtypeBytes[dtype];
  const byteLength = storedByteLength(dtype, shape);
  const startByte = tensor.offset * itemBytes;
  const lastElement = shape.reduce(
    (last, length, axis) => last + (length - 1) * strides[axis],
    tensor.offset,
  );
  const endByte = byteLength === 0 ? 0 : (lastElement + 1) * itemBytes;
  // The second bound keeps an expanded tensor (stride 0) from asking for more memory than the file has bytes.
  if (endByte > storageBytes(storage) || byteLength > storageBytes(storage)) {
    throw broken(path, `a tensor '${name}' that is larger than its storage`);
  }
  const source = (): ByteSource => {
    const bytes = open(storage);
    if (bytes.byteLength < storageBytes(storage)) {
      throw broken(path, `${bytes.byteLength} of ${storageBytes(storage)} bytes of '${name}'`);
    }
    return bytes;
  };
  if (byteLength === 0 || isContiguous(shape, strides)) {
    const readRange = (into: Uint8Array, byteOffset: number): void =>
      source().readInto(into, startByte + byteOffset);
    return { dtype, shape, byteLength, readRange };
  }
  let gathered: WeakRef<Uint8Array> | undefined;
  const gather = (): Uint8Array => {
    // Ranges of one tensor are asked for in turn: the collector decides how long the gathered copy stays.
    const kept = gathered?.deref();
    if (kept !== undefined) return kept;
    const span = new Uint8Array(endByte - startByte);
    source().readInto(span, startByte);
    const bytes = gatherStrided(span, { shape, strides, itemBytes });
    gathered = new WeakRef(bytes);
    return bytes;
  };
  const readRange = (into: Uint8Array, byteOffset: number): void =>
    into.set(gather().subarray(byteOffset, byteOffset + into.byteLength));
  return { dtype, shape, byteLength, readRange };
}
