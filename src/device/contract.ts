/**
 * What a backend is. Everything above src/device knows only this file and the operator table.
 *
 * Work is queued in one stream, in order; `download`, `Readback.wait` and `synchronize` wait for it. A buffer may be disposed
 * while queued work still uses it: memory is reused in stream order.
 */
import type { Dtype, FileRange } from "../base/index.ts";
import type { OpName, ops, TensorAccess } from "./ops.ts";

export type DeviceKind = "reference" | "cpu" | "cuda";

/** Memory of one owner. Using it after `dispose` throws DisposedError. */
export interface DeviceBuffer extends Disposable {
  readonly device: Device;
  readonly byteLength: number;
  readonly isDisposed: boolean;
  dispose(): void;
}

/** A place in a buffer and how to read it: what an operator takes for a tensor. Tensors satisfy it. */
export interface TensorArgument {
  readonly buffer: DeviceBuffer;
  readonly byteOffset: number;
  readonly dtype: Dtype;
}

type TensorArguments<Tensors extends Readonly<Record<string, TensorAccess>>> = {
  readonly [Name in keyof Tensors as Tensors[Name] extends `${string}?` ? never : Name]: TensorArgument;
} & {
  readonly [Name in keyof Tensors as Tensors[Name] extends `${string}?` ? Name : never]?:
    | TensorArgument
    | undefined;
};

/** The arguments of operator `Name`, by the names of the operator table. */
export type OpArguments<Name extends OpName> = TensorArguments<(typeof ops)[Name]["tensors"]> & {
  readonly [
    Argument in (typeof ops)[Name]["integers"][number] | (typeof ops)[Name]["floats"][number]
  ]: number;
};

/** A recorded list of operators, replayed by one native call. Its buffers must outlive it; its scalars are frozen. */
export interface DeviceGraph extends Disposable {
  replay(): void;
  dispose(): void;
}

/** A copy from the device that is under way. */
export interface Readback {
  readonly isReady: boolean;
  /** Waits, then gives the bytes; valid until the next readback of the device is waited for. */
  wait(): Uint8Array;
}

export interface MemoryStatistics {
  /** Bytes of buffers that are not disposed, as asked for. */
  liveBytes: number;
  peakLiveBytes: number;
  numLiveBuffers: number;
  /** Bytes held from the system, free lists included. */
  reservedBytes: number;
  peakReservedBytes: number;
  /** Bytes of files that buffers show (`mapFile`); not among the others: the system takes them back as it likes. */
  mappedBytes?: number;
  /** What the device has in all, and could still give, where that is known. */
  totalBytes?: number;
  freeBytes?: number;
}

/**
 * Which sizes of an operator a device may stop for, to time how they are best done: what repeats by its nature (graphs, whole tiles of
 * rows), all that come, or none.
 */
export type Tuning = "repeated" | "all" | "none";

/** Bytes of a buffer. Tensors satisfy it. */
export interface BufferRange {
  readonly buffer: DeviceBuffer;
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** A range of a file and its place on the device. */
export interface FileTransfer extends FileRange {
  readonly target: DeviceBuffer;
  readonly byteOffset: number;
}

export interface Device extends Disposable {
  readonly kind: DeviceKind;
  /** For people: "AMD EPYC, 2 threads, avx512-bf16". */
  readonly description: string;
  /** Uninitialised memory, 256-byte aligned. Throws OutOfMemoryError. */
  allocate(byteLength: number): DeviceBuffer;
  /** Queues one operator. Throws UnsupportedOpError, DisposedError. */
  run<Name extends OpName>(name: Name, args: OpArguments<Name>): void;
  /** Whether `run` has a kernel for this operator with these dtypes, by tensor name. */
  supports(name: OpName, dtypes: Readonly<Partial<Record<string, Dtype>>>): boolean;
  /** Queues a copy to the device; `bytes` may be changed as soon as this returns. */
  upload(target: DeviceBuffer, byteOffset: number, bytes: Uint8Array): void;
  /**
   * Reads ranges of files to the device, many at once, and waits for them. Gives those that are left to `upload`: because they
   * could not be read whole, or because it is as fast. Absent where it always is.
   */
  uploadFiles?(transfers: readonly FileTransfer[]): FileTransfer[];
  /**
   * A range of an open file as a buffer that can be read and not written: operators, uploads and copies to it throw DeviceError. Its bytes
   * are read when they are first used; the descriptor may be closed. The start is aligned as in the file. Gives undefined where the system
   * refuses or the file is shorter; absent where the device has memory of its own.
   */
  mapFile?(range: FileRange): DeviceBuffer | undefined;
  /** Has the system read parts of mapped buffers ahead of their first use, in this order; returns at once. */
  fetchMapped?(parts: readonly BufferRange[]): void;
  /** Waits for queued work and fills `into`. */
  download(source: DeviceBuffer, byteOffset: number, into: Uint8Array): void;
  /** Queues a copy from the device without waiting. */
  readback(source: DeviceBuffer, byteOffset: number, byteLength: number): Readback;
  /** Queues a copy between buffers of this device; the ranges do not overlap. */
  copy(
    source: DeviceBuffer,
    sourceOffset: number,
    target: DeviceBuffer,
    targetOffset: number,
    byteLength: number,
  ): void;
  synchronize(): void;
  /** Records what `record` runs, without running it. Buffers allocated inside stay with the caller. */
  capture(record: () => void): DeviceGraph;
  /** Runs `body` with another tuning than "repeated"; absent where nothing is ever timed. */
  withTuning?<Result>(tuning: Tuning, body: () => Result): Result;
  memory(): MemoryStatistics;
  resetPeakMemory(): void;
  /** Gives cached free memory back to the system. */
  trimMemory(): void;
  dispose(): void;
}
