/**
 * Native libraries: opens shared libraries and binds their functions by a small set of types, and shows native memory as
 * ArrayBuffers. Only this file imports koffi. Knows nothing of kernels or devices.
 *
 * Addresses travel as numbers: user-space addresses lie far below 2^53. A pointer parameter takes an address, a view of
 * JavaScript memory (for the length of the call), or null.
 */
import koffi from "koffi";
import { DeviceError, messageOf } from "../base/index.ts";

/** Types of parameters and results; `pointer` is a `void*`, `address` the same passed as a 64-bit integer, which is faster. */
export type NativeType =
  | "void"
  | "int32"
  | "uint32"
  | "int64"
  | "uint64"
  | "float32"
  | "float64"
  | "pointer"
  | "address"
  | "string";

export type NativeArgument = number | bigint | string | ArrayBufferView | null;
/** A bound function. 64-bit results are numbers while they are below 2^53. */
export type NativeFunction<Result> = (...args: NativeArgument[]) => Result;

const koffiTypes: Readonly<Record<NativeType, string>> = {
  void: "void",
  int32: "int32",
  uint32: "uint32",
  int64: "int64",
  uint64: "uint64",
  float32: "float",
  float64: "double",
  pointer: "void *",
  address: "int64",
  string: "str",
};

export interface NativeLibrary {
  readonly path: string;
  /** Binds a function that gives a number (or nothing: `void` gives undefined). Throws DeviceError where it is missing. */
  define(name: string, result: NativeType, parameters: readonly NativeType[]): NativeFunction<number>;
  /** As `define`; undefined where the library lacks the function. */
  find(
    name: string,
    result: NativeType,
    parameters: readonly NativeType[],
  ): NativeFunction<number> | undefined;
  /** As `define`, run on a thread of its own; the arguments' memory must live until it ends. */
  defineAsync(
    name: string,
    result: NativeType,
    parameters: readonly NativeType[],
  ): (...args: NativeArgument[]) => Promise<number>;
  /** Binds a function that gives a C string. */
  defineText(name: string, parameters: readonly NativeType[]): NativeFunction<string | null>;
}

/** Opens a shared library by path, or by name through the system's search. Throws DeviceError. */
export function openLibrary(path: string): NativeLibrary {
  const handle = load(path);
  const bind = (name: string, result: NativeType, parameters: readonly NativeType[]) =>
    handle.func(
      name,
      koffiTypes[result],
      parameters.map((parameter) => koffiTypes[parameter]),
    );
  const missing = (name: string, error: unknown): DeviceError =>
    new DeviceError("native", `expected function ${name} in ${path}, got ${messageOf(error)}`, {
      cause: error,
    });
  const bindOrThrow = (name: string, result: NativeType, parameters: readonly NativeType[]) => {
    try {
      return bind(name, result, parameters);
    } catch (error) {
      throw missing(name, error);
    }
  };
  return {
    path,
    define: bindOrThrow,
    find(name, result, parameters) {
      try {
        return bind(name, result, parameters);
      } catch {
        return undefined;
      }
    },
    defineAsync(name, result, parameters) {
      const native = bindOrThrow(name, result, parameters);
      return (...args) =>
        new Promise((resolve, reject) => {
          native.async(...args, (error: unknown, value: number) => {
            if (error === null || error === undefined) resolve(value);
            else reject(missing(name, error));
          });
        });
    },
    defineText: (name, parameters) => bindOrThrow(name, "string", parameters),
  };
}

function load(path: string): ReturnType<typeof koffi.load> {
  try {
    return koffi.load(path);
  } catch (error) {
    throw new DeviceError("native", `expected a loadable library at ${path}, got ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** Native memory as an ArrayBuffer, without a copy. It must not be touched after the memory is freed. */
export function viewMemory(address: number, byteLength: number): ArrayBuffer {
  return koffi.view(BigInt(address), byteLength);
}

/** The address of JavaScript memory, which does not move; the caller keeps a reference while native code may use it. */
export function addressOfMemory(memory: ArrayBuffer): number {
  return Number(koffi.address(memory));
}
