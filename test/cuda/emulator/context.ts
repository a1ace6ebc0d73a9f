/**
 * A LaunchContext that runs kernels on the CPU through emulator.h: a kernel's file is compiled with g++ into a library of its own, kept
 * in the cache folder, and called with the packed parameters. Knows nothing of operators.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder, DeviceError } from "../../../src/base/index.ts";
import { kernelFolder } from "../../../src/device/cuda/compiler.ts";
import {
  declaredKernels,
  type Extent,
  type KernelParameter,
  type KernelReference,
  type LaunchContext,
  type LaunchShape,
} from "../../../src/device/cuda/launcher.ts";
import { NativeWords } from "../../../src/device/cuda/native.ts";
import { openLibrary, viewMemory, type NativeFunction } from "../../../src/device/ffi.ts";

const sourceFolder = import.meta.dirname;
// A block's shared memory is a static variable of a template; those of two specialisations must not become one.
const flags = [
  "-std=c++17",
  "-O1",
  "-march=x86-64-v3",
  "-fno-strict-aliasing",
  "-ffp-contract=off",
  "-fno-gnu-unique",
  "-w",
];

function headers(): Map<string, string> {
  const texts = new Map<string, string>();
  for (const name of readdirSync(kernelFolder))
    if (name.endsWith(".cuh")) texts.set(name, readFileSync(join(kernelFolder, name), "utf8"));
  for (const name of ["emulator.h", "ptx.cuh"])
    texts.set(name, readFileSync(join(sourceFolder, name), "utf8"));
  return texts;
}

/** The file as C++: what launcher.ts puts before it, and a plain C function per kernel. */
function unitOf(reference: KernelReference): string {
  const definitions = Object.entries(reference.defines)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) =>
      typeof value === "number" ? `#define ${name} ${value}` : `using ${name} = ${value};`,
    );
  const entries = declaredKernels().filter(({ moduleKey }) => moduleKey === reference.moduleKey);
  return [
    '#include "emulator.h"',
    "namespace kernels {",
    '#include "common.cuh"',
    ...definitions,
    `#line 1 "${reference.file}"`,
    readFileSync(join(kernelFolder, reference.file), "utf8"),
    "}",
    ...entries.map(
      ({ entry }) =>
        `extern "C" void emulate_${entry}(const int* extents, long shared_bytes, const char* parameters) {` +
        ` emulator::launch("${entry}", &kernels::${entry}, extents, shared_bytes, parameters); }`,
    ),
  ].join("\n");
}

/** The library of a kernel's module, compiled where the cache lacks it. Throws DeviceError with the compiler's messages. */
function compile(reference: KernelReference): string {
  const unit = unitOf(reference);
  const texts = headers();
  const hash = createHash("sha256").update(flags.join(" ")).update(unit);
  for (const [name, text] of texts) hash.update(name).update(text);
  const folder = cacheFolder("emulator", hash.digest("hex").slice(0, 24));
  const library = join(folder, "kernels.so");
  if (existsSync(library)) return library;
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of texts) writeFileSync(join(folder, name), text);
  const source = join(folder, "unit.cpp");
  writeFileSync(source, unit);
  const temporary = `${library}.${process.pid}`;
  try {
    execFileSync("g++", [...flags, "-I", folder, "-shared", "-fPIC", "-o", temporary, source], {
      stdio: "pipe",
    });
  } catch (error) {
    const output = String((error as { stderr?: unknown }).stderr ?? error);
    throw new DeviceError(
      "emulator",
      `expected ${reference.moduleKey} to compile, got\n${output.slice(0, 4000)}`,
    );
  }
  renameSync(temporary, library);
  return library;
}

function extents({ grid, block }: LaunchShape): number[] {
  const axes = (extent: Extent): number[] =>
    typeof extent === "number" ? [extent, 1, 1] : [extent[0], extent[1], extent[2] ?? 1];
  return [...axes(grid), ...axes(block)];
}

/** Parameters at their natural alignment. */
function pack(parameters: readonly KernelParameter[]): NativeWords {
  const words = new NativeWords(512);
  let offset = 0;
  const align = (bytes: number): void => {
    offset = Math.ceil(offset / bytes) * bytes;
  };
  for (const parameter of parameters) {
    if (parameter.kind === "bytes") {
      align(parameter.alignment);
      words.bytes.set(parameter.value, offset);
      offset += parameter.value.byteLength;
    } else if (parameter.kind === "i32" || parameter.kind === "f32") {
      align(4);
      if (parameter.kind === "i32") words.i32[offset / 4] = parameter.value;
      else words.f32[offset / 4] = parameter.value;
      offset += 4;
    } else {
      align(8);
      if (parameter.kind === "f64") words.f64[offset / 8] = parameter.value;
      else words.setWord(offset / 8, parameter.value);
      offset += 8;
    }
  }
  return words;
}

export class EmulatedContext implements LaunchContext {
  readonly multiprocessorCount = 4;
  readonly threadsPerMultiprocessor = 2048;
  readonly computeCapability = 90;
  readonly sharedMemoryLimit = 227 * 1024;
  readonly l2CacheBytes = 2 ** 20;
  readonly isDeterministic = true;
  readonly tuning = "none";
  readonly stream = 0;
  /** Set while a graph is recorded: launches are kept instead of run. */
  recorded: (() => void)[] | undefined;
  /** Launches so far, by kernel: what a test can expect of a launcher. */
  readonly numLaunches = new Map<string, number>();
  readonly #functions = new Map<KernelReference, NativeFunction<number>>();
  #workspace = new NativeWords(32);
  readonly #kept: NativeWords[] = [];

  get isCapturing(): boolean {
    return this.recorded !== undefined;
  }

  launch(reference: KernelReference, shape: LaunchShape, parameters: readonly KernelParameter[]): void {
    const words = new NativeWords(3);
    words.i32.set(extents(shape));
    if (words.i32.some((extent) => extent === 0)) return;
    if ((shape.sharedBytes ?? 0) > this.sharedMemoryLimit)
      throw new DeviceError("emulator", `expected less shared memory, got ${shape.sharedBytes}`);
    const packed = pack(parameters);
    let run = this.#functions.get(reference);
    if (run === undefined) {
      const library = openLibrary(compile(reference));
      run = library.define(`emulate_${reference.entry}`, "void", ["address", "int64", "address"]);
      this.#functions.set(reference, run);
    }
    const native = run;
    this.#queue(() => native(words.address, shape.sharedBytes ?? 0, packed.address));
    this.numLaunches.set(reference.entry, (this.numLaunches.get(reference.entry) ?? 0) + 1);
  }

  workspace(bytes: number): number {
    if (this.#workspace.byteLength < bytes + 256) {
      this.#kept.push(this.#workspace);
      this.#workspace = new NativeWords(Math.ceil(bytes / 8) + 64);
    }
    // Undefined contents; and no more than was asked for may be written.
    this.#workspace.bytes.fill(0xff);
    return Math.ceil(this.#workspace.address / 256) * 256;
  }

  tileMap(): Uint8Array {
    throw new DeviceError("emulator", "expected no tensor copies, got a kernel that needs them");
  }

  isSettled(): boolean {
    return false;
  }

  wasSettled(): boolean {
    return false;
  }

  memset(address: number, byte: number, bytes: number): void {
    if (bytes > 0) this.#queue(() => new Uint8Array(viewMemory(address, bytes)).fill(byte));
  }

  copy(target: number, source: number, bytes: number): void {
    if (bytes > 0)
      this.#queue(() =>
        new Uint8Array(viewMemory(target, bytes)).set(new Uint8Array(viewMemory(source, bytes))),
      );
  }

  #queue(work: () => void): void {
    if (this.recorded === undefined) work();
    else this.recorded.push(work);
  }
}
