/**
 * GGUF files, versions 2 and 3, little-endian (https://github.com/ggml-org/ggml, docs/gguf.md): typed metadata, then tensors at aligned
 * offsets. Tensors of F32, F16 and BF16 are given as they are, Q8_0 and Q4_0 as f32; another quantisation is refused by name when it is read.
 */
import { CheckpointError, formatShape, numElements } from "../../base/index.ts";
import { openFileBytes } from "../bytes.ts";
import type { ByteSource } from "../bytes.ts";
import { ByteCursor } from "../cursor.ts";
import { storedByteLength, tensorTable } from "../source.ts";
import type { StoredTensor, TensorSource } from "../source.ts";
import { dequantisedReader, ggmlTypes } from "./types.ts";

export type GgufValue = number | boolean | string | readonly GgufValue[];

export interface GgufFile extends Disposable {
  /** Under GGUF's names ("blk.0.attn_q.weight"), shapes with the fastest axis last. */
  readonly tensors: TensorSource;
  readonly metadata: ReadonlyMap<string, GgufValue>;
}

const component = "gguf";
const magic = 0x46554747;
const maxDimensions = 4;
const maxDepth = 4;
const defaultAlignment = 32;

function broken(path: string, got: string): CheckpointError {
  return new CheckpointError(component, `expected a whole GGUF file at ${path}, got ${got}`, {
    hint: "download or convert it again",
    fields: { path },
  });
}

/** Opens a GGUF file. Throws CheckpointError, FileError. */
export function openGguf(path: string): GgufFile {
  const file = openFileBytes(path);
  try {
    const { metadata, tensors } = readHeader(file);
    const source = tensorTable(path, tensors, { release: () => file[Symbol.dispose]() });
    return { tensors: source, metadata, [Symbol.dispose]: () => source.dispose() };
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

function readHeader(file: ByteSource): {
  metadata: Map<string, GgufValue>;
  tensors: Map<string, StoredTensor>;
} {
  const cursor = new ByteCursor(file, component);
  const { path } = file;
  if (cursor.u32() !== magic) throw broken(path, "another kind of file");
  const version = cursor.u32();
  if (version !== 2 && version !== 3) throw broken(path, `version ${version}`);
  const numTensors = cursor.u64();
  const numValues = cursor.u64();
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < numValues; i++) {
    const key = readText(cursor);
    if (metadata.has(key)) throw broken(path, `two values of '${key}'`);
    metadata.set(key, readValue(cursor, cursor.u32(), 0));
  }
  const infos = Array.from({ length: checkedCount(cursor, numTensors, 24) }, () => readInfo(cursor));
  const alignment = metadata.get("general.alignment") ?? defaultAlignment;
  if (typeof alignment !== "number" || !(alignment >= 1 && alignment <= 1 << 20)) {
    throw broken(path, `an alignment of ${JSON.stringify(alignment)}`);
  }
  const dataStart = Math.ceil(cursor.position / alignment) * alignment;
  const tensors = new Map<string, StoredTensor>();
  for (const info of infos) {
    if (tensors.has(info.name)) throw broken(path, `two tensors named '${info.name}'`);
    tensors.set(info.name, placeTensor(file, info, dataStart));
  }
  return { metadata, tensors };
}

/** A count that the rest of the file can hold, at `itemBytes` each at least. */
function checkedCount(cursor: ByteCursor, count: number, itemBytes: number): number {
  if (count * itemBytes > cursor.left) throw cursor.cutShort();
  return count;
}

function readText(cursor: ByteCursor): string {
  return cursor.text(cursor.u64());
}

type Scalar = (cursor: ByteCursor) => number | boolean | string;

/** Readers of the scalar value types, by number. */
const scalars: ReadonlyMap<number, Scalar> = new Map<number, Scalar>([
  [0, (cursor) => cursor.u8()],
  [1, (cursor) => cursor.i8()],
  [2, (cursor) => cursor.u16()],
  [3, (cursor) => cursor.i16()],
  [4, (cursor) => cursor.u32()],
  [5, (cursor) => cursor.i32()],
  [6, (cursor) => cursor.f32()],
  [7, (cursor) => cursor.u8() !== 0],
  [8, readText],
  [10, (cursor) => cursor.u64()],
  [11, (cursor) => cursor.i64()],
  [12, (cursor) => cursor.f64()],
]);
const arrayType = 9;

function readValue(cursor: ByteCursor, type: number, depth: number): GgufValue {
  const scalar = scalars.get(type);
  if (scalar !== undefined) return scalar(cursor);
  if (type !== arrayType || depth >= maxDepth) throw broken(cursor.path, `a value of unknown type ${type}`);
  const itemType = cursor.u32();
  const length = checkedCount(cursor, cursor.u64(), 1);
  const values: GgufValue[] = [];
  for (let i = 0; i < length; i++) values.push(readValue(cursor, itemType, depth + 1));
  return values;
}

interface TensorInfo {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: number;
  readonly offset: number;
}

function readInfo(cursor: ByteCursor): TensorInfo {
  const name = readText(cursor);
  const numDimensions = cursor.u32();
  if (numDimensions > maxDimensions)
    throw broken(cursor.path, `a tensor '${name}' of ${numDimensions} dimensions`);
  // GGUF names the fastest axis first.
  const shape = Array.from({ length: numDimensions }, () => cursor.u64()).reverse();
  return { name, shape, type: cursor.u32(), offset: cursor.u64() };
}

function placeTensor(
  file: ByteSource,
  { name, shape, type, offset }: TensorInfo,
  dataStart: number,
): StoredTensor {
  const known = ggmlTypes.get(type);
  const count = numElements(shape);
  if (known === undefined || !("dtype" in known)) {
    // The file is of use without this tensor: it is refused when it is asked for.
    const typeName = known?.name ?? `number ${type}`;
    return {
      dtype: "f32",
      shape,
      byteLength: storedByteLength("f32", shape),
      readRange: () => {
        throw new CheckpointError(
          component,
          `expected '${name}' in ${file.path} as F32, F16, BF16, Q8_0 or Q4_0, got ${typeName}`,
          {
            hint: "convert the model to Q8_0 or F16 first",
          },
        );
      },
    };
  }
  const { blockElements, blockBytes, dtype } = known;
  if (!Number.isSafeInteger(count) || (shape.at(-1) ?? 1) % blockElements !== 0) {
    throw broken(file.path, `a ${known.name} tensor '${name}' of shape ${formatShape(shape)}`);
  }
  const start = dataStart + offset;
  const storedBytes = (count / blockElements) * blockBytes;
  if (start + storedBytes > file.byteLength)
    throw broken(file.path, `too few bytes for its tensor '${name}'`);
  const read = (into: Uint8Array, byteOffset: number): void => file.readInto(into, start + byteOffset);
  const readRange = blockElements === 1 ? read : dequantisedReader(read, known);
  return { dtype, shape, byteLength: storedByteLength(dtype, shape), readRange };
}
