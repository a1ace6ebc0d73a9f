/**
 * The compiled kernel library of one instruction-set level: built or found in the cache, opened once per process, and bound.
 */
import { fileURLToPath } from "node:url";
import { cacheFolder, note } from "../../base/index.ts";
import { buildLibrary, findCompiler } from "../build/index.ts";
import { openLibrary, type NativeFunction } from "../ffi.ts";
import { generateHeader } from "./header.ts";
import { compileFlags, type CpuLevel } from "./levels.ts";

export interface NativeKernels {
  readonly path: string;
  readonly level: CpuLevel;
  /** (bytes) -> address, 0 where there is no room. */
  readonly allocate: NativeFunction<number>;
  /** (address) */
  readonly free: NativeFunction<number>;
  /** (descriptor, position, bytes) -> address of read-only memory; 0 where the file cannot be mapped. */
  readonly map: NativeFunction<number>;
  /** (pairs of address and bytes of mappings, their number): begins to read what of them is not in memory. */
  readonly fetch: NativeFunction<number>;
  /** (address, bytes) as `map` gave and was given them. */
  readonly unmap: NativeFunction<number>;
  /** (program address, numCommands, numThreads) -> 0 or status + 256 * index of the failing command. */
  readonly execute: NativeFunction<number>;
  /** (op index) -> 0 or 1. */
  readonly hasOp: NativeFunction<number>;
}

const opened = new Map<string, NativeKernels>();

/** Compiles (first use) and opens the kernels. Throws DeviceError, FileError. */
export async function loadKernels(level: CpuLevel): Promise<NativeKernels> {
  const path = await buildLibrary({
    compiler: await findCompiler(),
    name: `cpu-${level}`,
    sourceFolder: fileURLToPath(new URL("./kernels", import.meta.url)),
    generatedHeaders: { "nt_ops.h": generateHeader() },
    flags: compileFlags(level),
    cacheFolder: cacheFolder("kernels"),
    onCompile: (numFiles) => {
      note(`compiling ${numFiles} kernel files for ${level} (first use; takes some seconds)`);
    },
  });
  const known = opened.get(path);
  if (known !== undefined) return known;
  const library = openLibrary(path);
  const kernels: NativeKernels = {
    path,
    level,
    allocate: library.define("nt_alloc", "address", ["int64"]),
    free: library.define("nt_free", "void", ["address"]),
    map: library.define("nt_map", "address", ["int32", "int64", "int64"]),
    fetch: library.define("nt_fetch", "void", ["pointer", "int64"]),
    unmap: library.define("nt_unmap", "void", ["address", "int64"]),
    execute: library.define("nt_execute", "int64", ["address", "int64", "int32"]),
    hasOp: library.define("nt_has_op", "int32", ["int32"]),
  };
  opened.set(path, kernels);
  return kernels;
}
