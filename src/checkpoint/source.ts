/**
 * What every checkpoint format offers once it is open: named tensors, read when they are asked for, whole or a range at a time.
 * Bytes are row-major and little-endian whatever the format keeps.
 */
import { CheckpointError, invariant, nearest, numElements } from "../base/index.ts";
import type { FileRange } from "../base/index.ts";
import type { RangeReader } from "./bytes.ts";

/** Element types of stored tensors; the 8-bit floats and the wide unsigned integers are names only here. */
export const storedDtypeBytes = {
  f64: 8,
  f32: 4,
  bf16: 2,
  f16: 2,
  i64: 8,
  i32: 4,
  i16: 2,
  i8: 1,
  u64: 8,
  u32: 4,
  u16: 2,
  u8: 1,
  bool: 1,
  f8e4m3: 1,
  f8e5m2: 1,
} as const;

export type StoredDtype = keyof typeof storedDtypeBytes;
export const storedDtypes = Object.keys(storedDtypeBytes) as readonly StoredDtype[];

export interface StoredTensorInfo {
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
  readonly byteLength: number;
}

export interface TensorSource extends Disposable {
  /** For errors: the file or folder. */
  readonly path: string;
  readonly metadata: Readonly<Record<string, string>>;
  names(): Iterable<string>;
  has(name: string): boolean;
  /** Throws CheckpointError with the nearest name. */
  info(name: string): StoredTensorInfo;
  /** The whole tensor, row-major, little-endian. Throws CheckpointError, FileError. */
  read(name: string): Uint8Array<ArrayBuffer>;
  /** Fills `into` with the tensor's bytes from `byteOffset` on. Throws CheckpointError, FileError. */
  readInto(name: string, into: Uint8Array, byteOffset?: number): void;
  /** Where in one open file the tensor's bytes lie as they are read; absent or undefined where they are put together. */
  fileRange?(name: string): FileRange | undefined;
  dispose(): void;
}

/** A tensor of a source: what it is and how its bytes are got. */
export interface StoredTensor extends StoredTensorInfo {
  readonly readRange: RangeReader;
  readonly fileRange?: (() => FileRange | undefined) | undefined;
}

/** Bytes of a stored tensor. Not a safe integer when a damaged shape says so: compare, do not allocate. */
export function storedByteLength(dtype: StoredDtype, shape: readonly number[]): number {
  return numElements(shape) * storedDtypeBytes[dtype];
}

/** A source over a table of tensors; every format ends in one. `release` closes what the readers use. */
export function tensorTable(
  path: string,
  tensors: ReadonlyMap<string, StoredTensor>,
  {
    metadata = {},
    release = () => {},
  }: { metadata?: Readonly<Record<string, string>>; release?: () => void } = {},
): TensorSource {
  return new TensorTable(path, tensors, { metadata, release });
}

const largestUnprobedBytes = 1 << 20;

class TensorTable implements TensorSource {
  readonly path: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly #tensors: ReadonlyMap<string, StoredTensor>;
  #release: (() => void) | undefined;

  constructor(
    path: string,
    tensors: ReadonlyMap<string, StoredTensor>,
    { metadata, release }: { metadata: Readonly<Record<string, string>>; release: () => void },
  ) {
    this.path = path;
    this.metadata = metadata;
    this.#tensors = tensors;
    this.#release = release;
  }

  names(): Iterable<string> {
    return this.#tensors.keys();
  }

  has(name: string): boolean {
    return this.#tensors.has(name);
  }

  info(name: string): StoredTensor {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined) throw missingTensor(this.path, name, this.names());
    return tensor;
  }

  read(name: string): Uint8Array<ArrayBuffer> {
    const { byteLength } = this.info(name);
    // A damaged header may claim any size: its last byte must be there before memory is asked for.
    if (byteLength > largestUnprobedBytes) this.readInto(name, new Uint8Array(1), byteLength - 1);
    const bytes = new Uint8Array(byteLength);
    this.readInto(name, bytes);
    return bytes;
  }

  readInto(name: string, into: Uint8Array, byteOffset = 0): void {
    const { byteLength, readRange } = this.info(name);
    invariant(this.#release !== undefined, `open checkpoint ${this.path}`);
    invariant(byteOffset >= 0 && byteOffset + into.byteLength <= byteLength, `range within tensor ${name}`);
    readRange(into, byteOffset);
  }

  fileRange(name: string): FileRange | undefined {
    invariant(this.#release !== undefined, `open checkpoint ${this.path}`);
    return this.info(name).fileRange?.();
  }

  dispose(): void {
    const release = this.#release;
    this.#release = undefined;
    release?.();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** The error for a tensor that is not there. */
export function missingTensor(path: string, name: string, known: Iterable<string>): CheckpointError {
  const near = nearest(name, [...known]);
  return new CheckpointError("checkpoint", `expected a tensor '${name}' in ${path}, got none`, {
    hint: near === undefined ? "is it a checkpoint of this model?" : `there is '${near}'`,
    fields: { path, name },
  });
}

/** Small enough to stay in a core's cache between the read and the write. */
const defaultPieceBytes = 1 << 20;
/** The buffer of the last tensor that was read in pieces: fresh memory costs more than the copy into it. */
let spare: Uint8Array | undefined;

/** Bytes of a tensor, by default all, as pieces of one buffer, for writers: a piece is valid until the next is asked for. */
export function* tensorPieces(
  source: TensorSource,
  name: string,
  {
    pieceBytes = defaultPieceBytes,
    start = 0,
    byteLength,
  }: { pieceBytes?: number; start?: number; byteLength?: number } = {},
): Generator<Uint8Array> {
  const end = start + (byteLength ?? source.info(name).byteLength - start);
  const buffer = spare !== undefined && spare.byteLength >= pieceBytes ? spare : new Uint8Array(pieceBytes);
  // Two tensors read at once must not share it.
  spare = undefined;
  try {
    for (let offset = start; offset < end; offset += pieceBytes) {
      const piece = buffer.subarray(0, Math.min(pieceBytes, end - offset));
      source.readInto(name, piece, offset);
      yield piece;
    }
  } finally {
    spare = buffer;
  }
}
