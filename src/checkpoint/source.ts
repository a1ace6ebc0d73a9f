/** What every checkpoint format offers once it is open: named tensors, read when they are asked for. */
import { CheckpointError, nearest } from "../base/index.ts";

/** Element types of stored tensors; the 8-bit floats are names only here. */
export type StoredDtype =
  | "f64"
  | "f32"
  | "bf16"
  | "f16"
  | "i64"
  | "i32"
  | "i16"
  | "i8"
  | "u8"
  | "bool"
  | "f8e4m3"
  | "f8e5m2";

export const storedDtypeBytes: Readonly<Record<StoredDtype, number>> = {
  f64: 8,
  f32: 4,
  bf16: 2,
  f16: 2,
  i64: 8,
  i32: 4,
  i16: 2,
  i8: 1,
  u8: 1,
  bool: 1,
  f8e4m3: 1,
  f8e5m2: 1,
};

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
  dispose(): void;
}

/** The error for a tensor that is not there. */
export function missingTensor(path: string, name: string, known: Iterable<string>): CheckpointError {
  const near = nearest(name, [...known]);
  return new CheckpointError("checkpoint", `expected a tensor '${name}' in ${path}, got none`, {
    hint: near === undefined ? "is it a checkpoint of this model?" : `there is '${near}'`,
    fields: { path, name },
  });
}
