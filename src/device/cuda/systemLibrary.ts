/**
 * What loading takes of the C library: reads by threads of its own (POSIX asynchronous I/O), duplicates of descriptors, memory that may
 * lie in huge pages. Found by asking for it, never by the platform's name. Knows nothing of GPUs.
 */
import { DeviceError } from "../../base/index.ts";
import { openLibrary, type NativeLibrary } from "../ffi.ts";

/** Functions of glibc as its headers have them; addresses and sizes are numbers. */
export interface SystemLibrary {
  /** Starts a read; other than 0 where it cannot. Reads of one descriptor number run one after the other. */
  readonly aio_read: (controlBlock: number) => number;
  /** Waits until one of a list of reads has ended, or for a signal; null addresses are passed over. */
  readonly aio_suspend: (list: number, length: number, timeout: number) => number;
  readonly aio_error: (controlBlock: number) => number;
  /** Bytes read by a read that has ended. */
  readonly aio_return: (controlBlock: number) => number;
  readonly fcntl: (descriptor: number, command: number, argument: number) => number;
  readonly close: (descriptor: number) => number;
  readonly aligned_alloc: (alignment: number, byteLength: number) => number;
  readonly madvise: (address: number, byteLength: number, advice: number) => number;
  readonly free: (address: number) => number;
}

/** Asynchronous reads are in libc itself since glibc 2.34; before, in librt, which brings libc with it. */
const libraryNames = ["libc.so.6", "librt.so.1"];

/** Undefined where no library of `names` is glibc with these functions: control blocks have its layout. */
export function openSystemLibrary(names: readonly string[] = libraryNames): SystemLibrary | undefined {
  for (const name of names) {
    try {
      return bind(openLibrary(name));
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
    }
  }
  return undefined;
}

/** Throws DeviceError where it lacks one of the functions, or is not glibc. */
function bind(library: NativeLibrary): SystemLibrary {
  library.define("gnu_get_libc_version", "address", []);
  return {
    aio_read: library.define("aio_read", "int32", ["address"]),
    aio_suspend: library.define("aio_suspend", "int32", ["address", "int32", "address"]),
    aio_error: library.define("aio_error", "int32", ["address"]),
    aio_return: library.define("aio_return", "int64", ["address"]),
    fcntl: library.define("fcntl", "int32", ["int32", "int32", "int32"]),
    close: library.define("close", "int32", ["int32"]),
    aligned_alloc: library.define("aligned_alloc", "address", ["uint64", "uint64"]),
    madvise: library.define("madvise", "int32", ["address", "uint64", "int32"]),
    free: library.define("free", "void", ["address"]),
  };
}
