/**
 * The safetensors format: an 8-byte header length, a JSON header of names with dtype, shape and byte range, and the tensors'
 * bytes without gaps (https://github.com/huggingface/safetensors, "Format"). Read lazily, a range at a time; written as a
 * stream, whole or not at all.
 */
import { z } from "zod";
import { CheckpointError, invariant, messageOf, writeAll, writeFileAtomically } from "../base/index.ts";
import { openFileBytes } from "./bytes.ts";
import type { ByteSource } from "./bytes.ts";
import { storedByteLength, storedDtypeBytes, storedDtypes, tensorTable } from "./source.ts";
import type { StoredDtype, StoredTensor, TensorSource } from "./source.ts";

const component = "safetensors";
/** The limit of the reference implementation. */
const maxHeaderBytes = 100_000_000;
/**
 * Where data begins in files written here: the reference implementation has 8, but a mapped matrix whose rows begin with a cache line is
 * multiplied faster (docs/decisions/0016).
 */
const dataAlignment = 64;

const dtypeNames: Readonly<Record<StoredDtype, string>> = {
  f64: "F64",
  f32: "F32",
  bf16: "BF16",
  f16: "F16",
  i64: "I64",
  i32: "I32",
  i16: "I16",
  i8: "I8",
  u64: "U64",
  u32: "U32",
  u16: "U16",
  u8: "U8",
  bool: "BOOL",
  f8e4m3: "F8_E4M3",
  f8e5m2: "F8_E5M2",
};

const dtypesByName = new Map(storedDtypes.map((dtype) => [dtypeNames[dtype], dtype]));

const count = z.int().nonnegative();
const entrySchema = z.strictObject({
  dtype: z.string(),
  shape: z.array(count),
  data_offsets: z.tuple([count, count]),
});
const headerSchema = z.record(z.string(), z.unknown());
const metadataSchema = z.record(z.string(), z.string());

/** Opens one file; its header is checked whole, its data is read when asked for. Throws FileError, CheckpointError. */
export function openSafetensors(path: string): TensorSource {
  const file = openFileBytes(path);
  try {
    const { metadata, tensors } = readHeader(file);
    return tensorTable(path, tensors, { metadata, release: () => file[Symbol.dispose]() });
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

function broken(path: string, message: string): CheckpointError {
  return new CheckpointError(component, `expected a whole safetensors file at ${path}, got ${message}`, {
    hint: "download or save it again",
    fields: { path },
  });
}

function readHeader(file: ByteSource): {
  metadata: Record<string, string>;
  tensors: Map<string, StoredTensor>;
} {
  const { path, byteLength: fileBytes } = file;
  if (fileBytes < 8) throw broken(path, `only ${fileBytes} bytes`);
  const prefix = new Uint8Array(8);
  file.readInto(prefix, 0);
  const headerBytes = Number(new DataView(prefix.buffer).getBigUint64(0, true));
  if (headerBytes > maxHeaderBytes || 8 + headerBytes > fileBytes) {
    throw broken(path, `a header of ${headerBytes} bytes in a file of ${fileBytes}`);
  }
  const text = new Uint8Array(headerBytes);
  file.readInto(text, 8);
  const { __metadata__: rawMetadata = {}, ...entries } = parseHeader(path, text);
  const metadata = metadataSchema.safeParse(rawMetadata);
  if (!metadata.success) throw broken(path, "metadata that is not text by name");
  return { metadata: metadata.data, tensors: readEntries(file, entries, 8 + headerBytes) };
}

function parseHeader(path: string, bytes: Uint8Array): Record<string, unknown> {
  let text: string;
  let header: Record<string, unknown>;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    header = headerSchema.parse(JSON.parse(text));
  } catch (error) {
    const reason = error instanceof z.ZodError ? "not an object" : messageOf(error);
    throw broken(path, `a header that is not JSON by tensor name (${reason})`);
  }
  const repeated = repeatedKey(text);
  if (repeated !== undefined) throw broken(path, `two tensors named '${repeated}'`);
  return header;
}

/** The first key that stands twice at the top of a valid JSON object: JSON.parse keeps the last and says nothing. */
function repeatedKey(json: string): string | undefined {
  const seen = new Set<string>();
  let depth = 0;
  let text = "";
  for (const [token] of json.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\]:]/g)) {
    if (token === "{" || token === "[") depth++;
    else if (token === "}" || token === "]") depth--;
    else if (token !== ":") text = token;
    else if (depth === 1) {
      const key = String(JSON.parse(text));
      if (seen.has(key)) return key;
      seen.add(key);
    }
  }
  return undefined;
}

function readEntries(
  file: ByteSource,
  entries: Readonly<Record<string, unknown>>,
  dataStart: number,
): Map<string, StoredTensor> {
  const { path, byteLength: fileBytes } = file;
  const tensors = new Map<string, StoredTensor>();
  const ranges: { name: string; start: number; end: number }[] = [];
  for (const [name, value] of Object.entries(entries)) {
    const parsed = entrySchema.safeParse(value);
    if (!parsed.success) throw broken(path, `a header entry '${name}' without dtype, shape and data_offsets`);
    const { shape, data_offsets: offsets } = parsed.data;
    const dtype = dtypesByName.get(parsed.data.dtype);
    if (dtype === undefined) throw broken(path, `tensor '${name}' of unknown dtype ${parsed.data.dtype}`);
    const byteLength = storedByteLength(dtype, shape);
    if (offsets[1] - offsets[0] !== byteLength) {
      throw broken(path, `tensor '${name}' of ${byteLength} bytes in a range of ${offsets[1] - offsets[0]}`);
    }
    const start = dataStart + offsets[0];
    ranges.push({ name, start, end: start + byteLength });
    const readRange = (into: Uint8Array, byteOffset: number): void => file.readInto(into, start + byteOffset);
    const fileRange = () => file.fileRange?.(start, byteLength);
    tensors.set(name, { dtype, shape, byteLength, readRange, fileRange });
  }
  let end = dataStart;
  for (const range of ranges.sort((a, b) => a.start - b.start || a.end - b.end)) {
    if (range.start !== end) throw broken(path, `a gap or an overlap before tensor '${range.name}'`);
    end = range.end;
  }
  if (end !== fileBytes) throw broken(path, `${fileBytes} bytes where the header says ${end}`);
  return tensors;
}

/** A tensor as a file announces it; its bytes are asked for when they are written. */
export interface TensorHeader {
  readonly name: string;
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
}

export interface WriteOptions {
  /** The bytes of a tensor in one or more pieces; a piece may be reused once the next is asked for. */
  dataOf: (name: string) => Iterable<Uint8Array>;
  metadata?: Readonly<Record<string, string>>;
}

/**
 * Writes one file atomically, as a stream. `headers` are what is announced; wider elements are stored first, so that every tensor is
 * aligned for a reader that maps the file, and otherwise in the order given. Throws FileError; nothing is left behind then.
 */
export function writeSafetensors(
  path: string,
  headers: readonly TensorHeader[],
  { dataOf, metadata = {} }: WriteOptions,
): void {
  let offset = 0;
  const entries = headers
    .toSorted((a, b) => storedDtypeBytes[b.dtype] - storedDtypeBytes[a.dtype])
    .map(({ name, dtype, shape }) => {
      const begin = offset;
      offset += storedByteLength(dtype, shape);
      return [name, { dtype: dtypeNames[dtype], shape, data_offsets: [begin, offset] }] as const;
    });
  invariant(new Set(headers.map(({ name }) => name)).size === headers.length, "tensor names are unique");
  const withMetadata =
    Object.keys(metadata).length === 0 ? entries : [["__metadata__", metadata] as const, ...entries];
  const json = Buffer.from(JSON.stringify(Object.fromEntries<unknown>(withMetadata)), "utf8");
  const padding = (dataAlignment - ((8 + json.byteLength) % dataAlignment)) % dataAlignment;
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
