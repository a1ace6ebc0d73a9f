/**
 * The safetensors format: an 8-byte header length, a JSON header of names with dtype, shape and byte range, and the tensors'
 * bytes without gaps (https://github.com/huggingface/safetensors, "Format"). Read lazily, a range at a time; written as a
 * stream, whole or not at all.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { z } from "zod";
import {
  CheckpointError,
  invariant,
  messageOf,
  withFileErrors,
  writeAll,
  writeFileAtomically,
} from "../base/index.ts";
import { missingTensor, storedDtypeBytes } from "./source.ts";
import type { StoredDtype, StoredTensorInfo, TensorSource } from "./source.ts";

const component = "safetensors";
const maxHeaderBytes = 100_000_000;
const headerAlignment = 8;

const dtypeNames: Readonly<Record<StoredDtype, string>> = {
  f64: "F64",
  f32: "F32",
  bf16: "BF16",
  f16: "F16",
  i64: "I64",
  i32: "I32",
  i16: "I16",
  i8: "I8",
  u8: "U8",
  bool: "BOOL",
  f8e4m3: "F8_E4M3",
  f8e5m2: "F8_E5M2",
};
const dtypesByName = new Map(Object.entries(dtypeNames).map(([dtype, name]) => [name, dtype]));

function isStoredDtype(text: string | undefined): text is StoredDtype {
  return text !== undefined && text in storedDtypeBytes;
}

const count = z.int().nonnegative();
const entrySchema = z.strictObject({
  dtype: z.string(),
  shape: z.array(count),
  data_offsets: z.tuple([count, count]),
});
const headerSchema = z.record(z.string(), z.unknown());
const metadataSchema = z.record(z.string(), z.string());

interface Entry extends StoredTensorInfo {
  /** Position in the file. */
  readonly start: number;
}

class SafetensorsFile implements TensorSource {
  readonly path: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly #entries: ReadonlyMap<string, Entry>;
  #descriptor: number | undefined;

  constructor(path: string) {
    this.path = path;
    const descriptor = withFileErrors(component, "a safetensors file", path, () => openSync(path, "r"));
    try {
      const { metadata, entries } = readHeader(path, descriptor);
      this.metadata = metadata;
      this.#entries = entries;
    } catch (error) {
      closeSync(descriptor);
      throw error;
    }
    this.#descriptor = descriptor;
  }

  names(): Iterable<string> {
    return this.#entries.keys();
  }

  has(name: string): boolean {
    return this.#entries.has(name);
  }

  info(name: string): StoredTensorInfo {
    return this.#entry(name);
  }

  #entry(name: string): Entry {
    const entry = this.#entries.get(name);
    if (entry === undefined) throw missingTensor(this.path, name, this.names());
    return entry;
  }

  read(name: string): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.#entry(name).byteLength);
    this.readInto(name, bytes);
    return bytes;
  }

  readInto(name: string, into: Uint8Array, byteOffset = 0): void {
    const { start, byteLength } = this.#entry(name);
    invariant(byteOffset + into.byteLength <= byteLength, `range within tensor ${name}`);
    invariant(this.#descriptor !== undefined, `open file ${this.path}`);
    readFully(this.path, this.#descriptor, { into, position: start + byteOffset });
  }

  dispose(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Opens one file. Throws FileError, CheckpointError. */
export function openSafetensors(path: string): TensorSource {
  return new SafetensorsFile(path);
}

function broken(path: string, message: string): CheckpointError {
  return new CheckpointError(component, `expected a whole safetensors file at ${path}, got ${message}`, {
    hint: "download or save it again",
    fields: { path },
  });
}

function readFully(
  path: string,
  descriptor: number,
  { into, position }: { into: Uint8Array; position: number },
): void {
  const largestRead = 1 << 30;
  for (let done = 0; done < into.byteLength;) {
    const length = Math.min(largestRead, into.byteLength - done);
    const numRead = withFileErrors(component, "a readable file", path, () =>
      readSync(descriptor, into, done, length, position + done),
    );
    if (numRead === 0) throw broken(path, `${position + done} bytes of data and then its end`);
    done += numRead;
  }
}

function readHeader(
  path: string,
  descriptor: number,
): { metadata: Record<string, string>; entries: Map<string, Entry> } {
  const fileBytes = fstatSync(descriptor).size;
  if (fileBytes < 8) throw broken(path, `only ${fileBytes} bytes`);
  const prefix = new Uint8Array(8);
  readFully(path, descriptor, { into: prefix, position: 0 });
  const headerBytes = Number(new DataView(prefix.buffer).getBigUint64(0, true));
  if (headerBytes > maxHeaderBytes || 8 + headerBytes > fileBytes) {
    throw broken(path, `a header of ${headerBytes} bytes in a file of ${fileBytes}`);
  }
  const text = new Uint8Array(headerBytes);
  readFully(path, descriptor, { into: text, position: 8 });
  const { __metadata__: rawMetadata = {}, ...tensors } = parseHeader(path, text);
  const metadata = metadataSchema.safeParse(rawMetadata);
  if (!metadata.success) throw broken(path, "metadata that is not text by name");
  return {
    metadata: metadata.data,
    entries: readEntries(path, tensors, { dataStart: 8 + headerBytes, fileBytes }),
  };
}

function parseHeader(path: string, text: Uint8Array): Record<string, unknown> {
  try {
    return headerSchema.parse(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text)));
  } catch (error) {
    throw broken(path, `a header that is not JSON (${messageOf(error)})`);
  }
}

function readEntries(
  path: string,
  tensors: Readonly<Record<string, unknown>>,
  { dataStart, fileBytes }: { dataStart: number; fileBytes: number },
): Map<string, Entry> {
  const entries = new Map<string, Entry>();
  for (const [name, value] of Object.entries(tensors)) {
    const parsed = entrySchema.safeParse(value);
    if (!parsed.success) throw broken(path, `a header entry '${name}' without dtype, shape and data_offsets`);
    const { shape, data_offsets: offsets } = parsed.data;
    const dtype = dtypesByName.get(parsed.data.dtype);
    if (!isStoredDtype(dtype)) throw broken(path, `tensor '${name}' of unknown dtype ${parsed.data.dtype}`);
    const byteLength = shape.reduce((product, length) => product * length, storedDtypeBytes[dtype]);
    if (offsets[1] - offsets[0] !== byteLength) {
      throw broken(path, `tensor '${name}' of ${byteLength} bytes in a range of ${offsets[1] - offsets[0]}`);
    }
    entries.set(name, { dtype, shape, byteLength, start: dataStart + offsets[0] });
  }
  let end = dataStart;
  for (const [name, { start, byteLength }] of [...entries].sort(
    ([, a], [, b]) => a.start - b.start || a.byteLength - b.byteLength,
  )) {
    if (start !== end) throw broken(path, `a gap or an overlap before tensor '${name}'`);
    end = start + byteLength;
  }
  if (end !== fileBytes) throw broken(path, `${fileBytes} bytes where the header says ${end}`);
  return entries;
}

/** A tensor as a file announces it; its bytes are asked for when they are written. */
export interface TensorHeader {
  readonly name: string;
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
}

/**
 * Writes one file atomically. `headers` are what is announced; `dataOf` is asked for each tensor's bytes in the same order. Throws
 * FileError; nothing is left behind then.
 */
export function writeSafetensors(
  path: string,
  headers: readonly TensorHeader[],
  {
    dataOf,
    metadata = {},
  }: { dataOf: (name: string) => Iterable<Uint8Array>; metadata?: Readonly<Record<string, string>> },
): void {
  let offset = 0;
  const entries = headers.map(({ name, dtype, shape }) => {
    const byteLength = shape.reduce((product, length) => product * length, storedDtypeBytes[dtype]);
    const begin = offset;
    offset += byteLength;
    return [name, { dtype: dtypeNames[dtype], shape, data_offsets: [begin, offset] }] as const;
  });
  invariant(new Set(headers.map(({ name }) => name)).size === headers.length, "tensor names are unique");
  const withMetadata =
    Object.keys(metadata).length === 0 ? entries : [["__metadata__", metadata] as const, ...entries];
  const json = Buffer.from(JSON.stringify(Object.fromEntries<unknown>(withMetadata)), "utf8");
  const padding = (headerAlignment - (json.byteLength % headerAlignment)) % headerAlignment;
  writeFileAtomically(component, path, (descriptor) => {
    const prefix = Buffer.alloc(8);
    prefix.writeBigUInt64LE(BigInt(json.byteLength + padding));
    writeAll(descriptor, prefix);
    writeAll(descriptor, Buffer.concat([json, Buffer.alloc(padding, " ")]));
    for (const [name, { data_offsets: offsets }] of entries) {
      let written = 0;
      for (const piece of dataOf(name)) {
        writeAll(descriptor, piece);
        written += piece.byteLength;
      }
      invariant(written === offsets[1] - offsets[0], `all bytes of tensor ${name}`);
    }
  });
}
