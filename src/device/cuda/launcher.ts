/**
 * What a CUDA operator is written against: kernel references, packed launch parameters, and the context that launches.
 *
 * A family of operators lives in launch/<family>.ts, exports `const <family>Kernels = {…} satisfies CudaKernels`, and is merged
 * in kernels.ts; its .cu sources lie in kernels/. A launcher only queues work: it never waits, never reads device memory, and
 * gives the same result whether it runs eagerly or inside a graph capture.
 * Knows nothing of the driver: context.ts implements LaunchContext.
 */
import { DeviceError, DtypeError, type Dtype } from "../../base/index.ts";
import type { DeviceBuffer, OpArguments, TensorArgument, Tuning } from "../contract.ts";
import type { OpName } from "../ops.ts";
import { CudaBuffer } from "./buffer.ts";

/** Launchers by operator. An operator without one is unsupported on this backend. */
export type CudaKernels = {
  readonly [Name in OpName]?: (context: LaunchContext, args: OpArguments<Name>) => void;
};

/**
 * What a source is specialised by: `{ T: "bf16", WIDTH: 4096 }`. Before the source stand `#include "common.cuh"`, then for a
 * text value `using T = bf16;` and for a number `#define WIDTH 4096`. (Types are no macros: the compiler's own headers have
 * template parameters called T.)
 */
export type Defines = Readonly<Record<string, string | number>>;

/** One `extern "C" __global__` function of one source file under one set of definitions. Compiled on first launch. */
export interface KernelReference {
  /** A file of kernels/, such as "norm.cu". */
  readonly file: string;
  readonly entry: string;
  readonly defines: Defines;
  /** Smallest compute capability that it compiles for, as major * 10 + minor. */
  readonly minimumCapability: number;
  /** Few models need it: it is compiled when it is first launched, not ahead with the others. */
  readonly isRare: boolean;
  /** Equal for references that share a compiled module: file and definitions. */
  readonly moduleKey: string;
}

const declared: KernelReference[] = [];

/**
 * Declares a kernel. Call it at module level, once per variant, so that scripts/compile-cuda.ts sees every kernel there is.
 * Kernels of one file with equal definitions are compiled together.
 */
export function kernel(options: {
  file: string;
  entry: string;
  defines?: Defines;
  minimumCapability?: number;
  isRare?: boolean;
}): KernelReference {
  const { file, entry, defines = {}, minimumCapability = 80, isRare = false } = options;
  const definitions = Object.keys(defines)
    .sort()
    .map((name) => `${name}=${defines[name]}`);
  const moduleKey = [file, ...definitions].join(" ");
  const reference = { file, entry, defines, minimumCapability, isRare, moduleKey };
  declared.push(reference);
  return reference;
}

/** Every kernel declared so far, in order of declaration. */
export function declaredKernels(): readonly KernelReference[] {
  return declared;
}

/** The names that kernel sources use for element types (common.cuh). */
export const cudaTypes: Readonly<Record<Dtype, string>> = {
  f32: "float",
  bf16: "bf16",
  f16: "f16",
  f64: "double",
  i32: "int32_t",
  i64: "int64_t",
  u8: "uint8_t",
};

/** The usual pair of variants, with T defined as float and as bf16. */
export function perFloat(
  file: string,
  entry: string,
  defines: Defines = {},
): Readonly<Record<"f32" | "bf16", KernelReference>> {
  return {
    f32: kernel({ file, entry, defines: { ...defines, T: cudaTypes.f32 } }),
    bf16: kernel({ file, entry, defines: { ...defines, T: cudaTypes.bf16 } }),
  };
}

/** `tensor.dtype`, when it is f32 or bf16. Throws DtypeError. */
export function floatDtype(op: OpName, tensor: TensorArgument): "f32" | "bf16" {
  const { dtype } = tensor;
  if (dtype !== "f32" && dtype !== "bf16")
    throw new DtypeError("cuda", `expected f32 or bf16 for ${op}, got ${dtype}`);
  return dtype;
}

/** A kernel parameter; packed at its natural alignment, as the C compiler lays out the kernel's signature. */
export type KernelParameter =
  | { readonly kind: "pointer" | "i32" | "i64" | "f32" | "f64"; readonly value: number }
  | { readonly kind: "bytes"; readonly value: Uint8Array; readonly alignment: number };

const nullPointer: KernelParameter = { kind: "pointer", value: 0 };

/** A `T*` parameter: the tensor's first byte, null for an absent tensor. Throws DisposedError. */
export function pointer(tensor: TensorArgument | undefined): KernelParameter {
  return tensor === undefined ? nullPointer : { kind: "pointer", value: addressOf(tensor) };
}
/** A `T*` parameter from an address, such as one inside the workspace. */
export function address(value: number): KernelParameter {
  return { kind: "pointer", value };
}
/** An `int` parameter. */
export function i32(value: number): KernelParameter {
  return { kind: "i32", value };
}
/** An `int64_t` parameter. */
export function i64(value: number): KernelParameter {
  return { kind: "i64", value };
}
/** A `float` parameter. */
export function f32(value: number): KernelParameter {
  return { kind: "f32", value };
}
/** A `double` parameter. */
export function f64(value: number): KernelParameter {
  return { kind: "f64", value };
}
/** A structure by value, such as a 128-byte tensor map (alignment 64). */
export function structure(value: Uint8Array, alignment: number): KernelParameter {
  return { kind: "bytes", value, alignment };
}

/** The device address of a tensor's first byte. Throws DisposedError. */
export function addressOf(tensor: TensorArgument): number {
  return addressOfBuffer(tensor.buffer) + tensor.byteOffset;
}

/** The device address of a buffer. Throws DisposedError, and DeviceError for a buffer of another backend. */
export function addressOfBuffer(buffer: DeviceBuffer): number {
  if (buffer instanceof CudaBuffer) return buffer.address;
  throw new DeviceError("cuda", "expected a tensor in GPU memory, got one of another device");
}

/** Blocks in a grid or threads in a block; a number is the x extent. */
export type Extent = number | readonly [x: number, y: number] | readonly [x: number, y: number, z: number];

export interface LaunchShape {
  readonly grid: Extent;
  readonly block: Extent;
  /** Dynamic shared memory; above 48 KiB the limit of the kernel is raised by itself. */
  readonly sharedBytes?: number;
  /** Blocks per cluster, Hopper and later. */
  readonly cluster?: Extent;
  /**
   * Programmatic dependent launch, Hopper and later: the kernel may start before its predecessor ends and must call
   * `griddepcontrol.wait` before it touches what that one wrote.
   */
  readonly overlapsPrevious?: boolean;
}

/** A row-major matrix that a kernel copies in tiles; address and row stride are multiples of 16 bytes, its rows of 128 bytes. */
export interface TiledMatrix {
  readonly address: number;
  readonly dtype: "bf16" | "u8";
  readonly rows: number;
  readonly columns: number;
  /** In elements. */
  readonly rowStride: number;
  /** Rows of a tile, at most 256. */
  readonly tileRows: number;
  /** Boxes of 128 bytes of each row of a tile, at most 256; they lie one after the other in shared memory. */
  readonly tileBoxes: number;
}

/** The device as a launcher sees it. Everything is queued in the compute stream, in order. */
export interface LaunchContext {
  /** Queues a kernel; compiles and loads it first if need be. An empty grid queues nothing. */
  launch(kernel: KernelReference, shape: LaunchShape, parameters: readonly KernelParameter[]): void;
  /**
   * Device address of at least `bytes` of scratch, 256-byte aligned, contents undefined; valid until the operator returns
   * (work queued by it included). One block per operator: a second call gives the same memory.
   */
  workspace(bytes: number): number;
  /**
   * The kernel parameter that describes a matrix to the tensor copies of Hopper and later (128 bytes, alignment 64): tiles lie in the
   * 128-byte swizzle, and what lies outside the matrix is zero.
   */
  tileMap(matrix: TiledMatrix): Uint8Array;
  /** Whether nothing queued that may still run writes the tensor's buffer, so that a kernel may read it before its predecessor ends. */
  isSettled(tensor: TensorArgument): boolean;
  /** The same before this operator: for the first kernel of one that writes the tensor itself. */
  wasSettled(tensor: TensorArgument): boolean;
  /** Queues a fill of `bytes` bytes with one byte value. */
  memset(address: number, byte: number, bytes: number): void;
  /** Queues a copy within the device. */
  copy(target: number, source: number, bytes: number): void;
  readonly multiprocessorCount: number;
  /** Largest number of threads that live on one multiprocessor. */
  readonly threadsPerMultiprocessor: number;
  /** major * 10 + minor: 80 on A100, 90 on H100 and H200. */
  readonly computeCapability: number;
  /** Largest dynamic shared memory of one block, in bytes. */
  readonly sharedMemoryLimit: number;
  readonly l2CacheBytes: number;
  /** Results must be bit-identical from run to run, also where a faster way is not. */
  readonly isDeterministic: boolean;
  /** Which sizes are worth stopping for. */
  readonly tuning: Tuning;
  /** A graph is being captured: what is queued now is recorded, not run. */
  readonly isCapturing: boolean;
  /** CUstream, for libraries. */
  readonly stream: number;
}
