/**
 * Kernel sources to machine code, cached on disk. The name of a cached image is a hash of everything it depends on: the source
 * with its definitions, every header, the architecture, the options and the compiler's version; so a cached file is never stale.
 * Knows the kernels' folder and the prelude of launcher.ts; nothing of the driver, so it also runs where there is no GPU.
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import {
  cacheFolder,
  invariant,
  readText,
  withFileErrors,
  writeAll,
  writeFileAtomically,
} from "../../base/index.ts";
import type { Defines, KernelReference } from "./launcher.ts";
import type { CompileInput, CompileOutput } from "./nvrtc.ts";

/** Where the .cu and .cuh files lie. */
export const kernelFolder: string = join(import.meta.dirname, "kernels");

/** What is needed of NVRTC. */
export interface Compiler {
  readonly version: number;
  readonly architectures: readonly number[];
  compile(input: CompileInput): CompileOutput;
  compileAsync(input: CompileInput): Promise<CompileOutput>;
}

export type Module = Pick<KernelReference, "file" | "defines" | "moduleKey">;

/**
 * The compiler's name of the architecture for a device of `capability` (major * 10 + minor): the machine code of that very
 * device, with its own instructions from 9.0 on (`sm_90a`); where the compiler is older than the device, PTX for the newest that it
 * knows, which the driver translates.
 */
export function architectureFor(capability: number, known: readonly number[]): string {
  if (known.includes(capability)) return capability >= 90 ? `sm_${capability}a` : `sm_${capability}`;
  const below = known.filter((architecture) => architecture < capability);
  const newest = below[below.length - 1];
  invariant(newest !== undefined, `no architecture for compute capability ${capability}`);
  // Code for an older minor version of the same major version runs as it is.
  return Math.floor(newest / 10) === Math.floor(capability / 10) ? `sm_${newest}` : `compute_${newest}`;
}

function prelude(file: string, defines: Defines): string {
  const lines = Object.keys(defines)
    .sort()
    .map((name) => {
      const value = defines[name];
      return typeof value === "number" ? `#define ${name} ${value}` : `using ${name} = ${value};`;
    });
  return ['#include "common.cuh"', ...lines, `#line 1 "${file}"`, ""].join("\n");
}

let headerTexts: Record<string, string> | undefined;

function headers(): Record<string, string> {
  if (headerTexts === undefined) {
    const names = withFileErrors("cuda", "the kernels' folder", kernelFolder, () =>
      readdirSync(kernelFolder),
    );
    const included = names.filter((name) => name.endsWith(".cuh")).sort();
    headerTexts = Object.fromEntries(
      included.map((name) => [name, readText("cuda", join(kernelFolder, name))]),
    );
  }
  return headerTexts;
}

function compileInput(module: Module, architecture: string): CompileInput {
  const source = prelude(module.file, module.defines) + readText("cuda", join(kernelFolder, module.file));
  return {
    name: module.file,
    source,
    headers: headers(),
    // The calls of lambdas are device code too; without the last option NVRTC 13.0 takes some for host code.
    options: [`--gpu-architecture=${architecture}`, "--std=c++17", "--device-as-default-execution-space"],
  };
}

function cachePath(input: CompileInput, compiler: Compiler): string {
  const hash = createHash("sha256");
  for (const part of [String(compiler.version), ...input.options, input.source])
    hash.update(`${part.length}\n${part}`);
  for (const [name, text] of Object.entries(input.headers)) hash.update(`${name}\n${text.length}\n${text}`);
  const stem = basename(input.name, ".cu");
  return cacheFolder("cuda", `${stem}-${hash.digest("hex").slice(0, 32)}.image`);
}

/** Whether a module's machine code is in the cache. */
export function isCompiled(compiler: Compiler, module: Module, architecture: string): boolean {
  return existsSync(cachePath(compileInput(module, architecture), compiler));
}

function store(path: string, image: Uint8Array): void {
  writeFileAtomically("cuda", path, (descriptor) => writeAll(descriptor, image));
}

/** Machine code of a module: from the cache, else compiled. Throws DeviceError with the compiler's messages. */
export function compileModule(compiler: Compiler, module: Module, architecture: string): Uint8Array {
  const input = compileInput(module, architecture);
  const path = cachePath(input, compiler);
  if (existsSync(path)) return withFileErrors("cuda", "a compiled kernel", path, () => readFileSync(path));
  const { image } = compiler.compile(input);
  store(path, image);
  return image;
}

/**
 * Compiles what is not cached yet, `parallel` at a time. Gives what each module weighs in bytes, in order.
 * Throws DeviceError with the messages of the first module that does not compile.
 */
export async function compileModules(
  compiler: Compiler,
  modules: readonly Module[],
  options: { architecture: string; parallel: number },
): Promise<number[]> {
  const bytes: number[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    while (next < modules.length) {
      const index = next++;
      const input = compileInput(modules[index], options.architecture);
      const path = cachePath(input, compiler);
      if (existsSync(path)) {
        bytes[index] = readFileSync(path).byteLength;
        continue;
      }
      const { image } = await compiler.compileAsync(input);
      store(path, image);
      bytes[index] = image.byteLength;
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, options.parallel) }, work));
  return bytes;
}

/** The modules of `kernels` that can run on a device of `capability`, each once. */
export function modulesOf(kernels: readonly KernelReference[], capability: number): Module[] {
  const modules = new Map<string, Module>();
  for (const reference of kernels)
    if (reference.minimumCapability <= capability) modules.set(reference.moduleKey, reference);
  return [...modules.values()];
}
