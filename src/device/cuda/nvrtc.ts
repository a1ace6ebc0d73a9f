/**
 * NVRTC, CUDA's run-time compiler: source text in, machine code for one architecture out. No toolkit headers are needed: the
 * includes of a source are given as text. Knows nothing of our kernels, caches or devices; works on a machine without a GPU.
 * Source: nvrtc.h.
 */
import { DeviceError } from "../../base/index.ts";
import { openCudaLibrary, supportedCudaMajors, type OpenedLibrary } from "./libraries.ts";
import { bindFunctions, nativeType, NativeWords, type Functions } from "./native.ts";
import { libraryError } from "./status.ts";

const table = {
  nvrtcVersion: ["pointer", "pointer"],
  nvrtcGetNumSupportedArchs: ["pointer"],
  nvrtcGetSupportedArchs: ["pointer"],
  nvrtcCreateProgram: ["pointer", "pointer", "pointer", "int", "pointer", "pointer"],
  nvrtcDestroyProgram: ["pointer"],
  nvrtcCompileProgram: ["pointer", "int", "pointer"],
  nvrtcGetCUBINSize: ["pointer", "pointer"],
  nvrtcGetCUBIN: ["pointer", "pointer"],
  nvrtcGetPTXSize: ["pointer", "pointer"],
  nvrtcGetPTX: ["pointer", "pointer"],
  nvrtcGetProgramLogSize: ["pointer", "pointer"],
  nvrtcGetProgramLog: ["pointer", "pointer"],
} as const;
export const nvrtcTable = table;

/** A source with everything it includes. */
export interface CompileInput {
  /** File name for messages. */
  readonly name: string;
  readonly source: string;
  /** Texts of includes, by the name in the #include line. */
  readonly headers: Readonly<Record<string, string>>;
  readonly options: readonly string[];
}

export interface CompileOutput {
  /** A cubin, or PTX text where the architecture is a virtual one (`compute_…`). */
  readonly image: Uint8Array<ArrayBuffer>;
  /** The compiler's messages; with `-Xptxas -v`-like options also what the kernels use. */
  readonly log: string;
}

/** A program that is being compiled, with the memory that native code reads meanwhile. */
interface Program {
  readonly handle: NativeWords;
  readonly options: NativeWords;
  readonly numOptions: number;
  readonly kept: readonly NativeWords[];
}

export class Nvrtc {
  readonly libraryPath: string;
  /** Version as major * 1000 + minor * 10, as the driver counts. */
  readonly version: number;
  /** Architectures it can compile for, as major * 10 + minor, ascending. */
  readonly architectures: readonly number[];
  readonly #functions: Functions<typeof table>;
  readonly #compileAsync: (...values: number[]) => Promise<number>;

  private constructor(library: OpenedLibrary) {
    this.libraryPath = library.path;
    this.#functions = bindFunctions(library.native, table, "install NVRTC 12 or later");
    this.#compileAsync = library.native.defineAsync(
      "nvrtcCompileProgram",
      "int32",
      table.nvrtcCompileProgram.map(nativeType),
    );
    const words = new NativeWords(2);
    this.#check("nvrtcVersion", this.#functions.nvrtcVersion(words.address, words.address + 4));
    this.version = words.i32[0] * 1000 + words.i32[1] * 10;
    this.#check("nvrtcGetNumSupportedArchs", this.#functions.nvrtcGetNumSupportedArchs(words.address));
    const numArchitectures = words.i32[0];
    const list = new NativeWords(numArchitectures);
    this.#check("nvrtcGetSupportedArchs", this.#functions.nvrtcGetSupportedArchs(list.address));
    this.architectures = [...list.i32.subarray(0, numArchitectures)].sort((a, b) => a - b);
  }

  /** Loads the compiler, once per process and version. `majors` are versions of CUDA, best first. Throws DeviceError naming the package that brings it. */
  static open(majors: readonly number[] = supportedCudaMajors): Nvrtc {
    const library = openCudaLibrary("nvrtc", majors);
    let compiler = Nvrtc.#instances.get(library);
    if (compiler === undefined) Nvrtc.#instances.set(library, (compiler = new Nvrtc(library)));
    return compiler;
  }
  static readonly #instances = new Map<OpenedLibrary, Nvrtc>();

  /** Compiles; blocks for the tens of milliseconds that takes. Throws DeviceError with the compiler's messages. */
  compile(input: CompileInput): CompileOutput {
    const program = this.#create(input);
    try {
      const { handle, options, numOptions } = program;
      const status = this.#functions.nvrtcCompileProgram(handle.word(0), numOptions, options.address);
      return this.#finish(input, program, status);
    } finally {
      this.#functions.nvrtcDestroyProgram(program.handle.address);
    }
  }

  /** As `compile`, on a thread of its own. */
  async compileAsync(input: CompileInput): Promise<CompileOutput> {
    const program = this.#create(input);
    try {
      const { handle, options, numOptions } = program;
      const status = await this.#compileAsync(handle.word(0), numOptions, options.address);
      return this.#finish(input, program, status);
    } finally {
      this.#functions.nvrtcDestroyProgram(program.handle.address);
    }
  }

  #create(input: CompileInput): Program {
    const texts = (values: readonly string[]): { list: NativeWords; kept: NativeWords[] } => {
      const kept = values.map((value) => NativeWords.ofText(value));
      const list = new NativeWords(Math.max(1, kept.length));
      kept.forEach((text, index) => list.setWord(index, text.address));
      return { list, kept };
    };
    const names = Object.keys(input.headers);
    const headers = texts(names.map((name) => input.headers[name]));
    const includeNames = texts(names);
    const options = texts(input.options);
    const source = NativeWords.ofText(input.source);
    const name = NativeWords.ofText(input.name);
    const handle = new NativeWords(1);
    const status = this.#functions.nvrtcCreateProgram(
      handle.address,
      source.address,
      name.address,
      names.length,
      headers.list.address,
      includeNames.list.address,
    );
    this.#check("nvrtcCreateProgram", status);
    const kept = [source, name, options.list, ...options.kept, ...headers.kept, ...includeNames.kept];
    return { handle, options: options.list, numOptions: input.options.length, kept };
  }

  #finish(input: CompileInput, program: Program, status: number): CompileOutput {
    const handle = program.handle.word(0);
    const functions = this.#functions;
    const logBytes = this.#read(handle, functions.nvrtcGetProgramLogSize, functions.nvrtcGetProgramLog);
    const log = new TextDecoder().decode(logBytes).replaceAll("\0", "").trim();
    if (status === 6)
      throw new DeviceError(
        "cuda",
        `expected ${input.name} to compile, got the compiler's messages below\n${log}`,
        {
          fields: { options: input.options },
        },
      );
    this.#check("nvrtcCompileProgram", status);
    const isVirtual = input.options.some((option) => option.includes("compute_"));
    const image = isVirtual
      ? this.#read(handle, functions.nvrtcGetPTXSize, functions.nvrtcGetPTX)
      : this.#read(handle, functions.nvrtcGetCUBINSize, functions.nvrtcGetCUBIN);
    return { image, log };
  }

  #read(
    handle: number,
    size: (handle: number, out: number) => number,
    read: (handle: number, out: number) => number,
  ): Uint8Array<ArrayBuffer> {
    const length = new NativeWords(1);
    this.#check("nvrtcGet…Size", size(handle, length.address));
    const memory = new NativeWords(Math.max(1, Math.ceil(length.word(0) / 8)));
    this.#check("nvrtcGet…", read(handle, memory.address));
    return memory.bytes.slice(0, length.word(0));
  }

  #check(call: string, status: number): void {
    if (status !== 0) throw libraryError("nvrtc", call, status);
  }
}
