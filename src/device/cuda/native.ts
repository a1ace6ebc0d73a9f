/**
 * Calls into shared libraries whose arguments are all numbers: addresses, sizes and handles travel as integers below 2^53, and
 * out-parameters go to memory of our own whose address is known. That is the cheapest call there is (about 40 ns) and leaves
 * nothing to convert. Knows nothing of CUDA.
 */
import { DeviceError, messageOf } from "../../base/index.ts";
import { addressOfMemory, type NativeFunction, type NativeLibrary, type NativeType } from "../ffi.ts";

/** Argument types as the headers name them; all travel as numbers. */
export type ArgumentType = "int" | "uint" | "int64" | "uint64" | "pointer" | "size";
type NativeArguments<Types extends readonly ArgumentType[]> = {
  -readonly [Index in keyof Types]: Types[Index] extends "uint64" ? number | bigint : number;
};

/** Functions of a library by symbol: their argument types. All of them return an int status. */
export type FunctionTable = Readonly<Record<string, readonly ArgumentType[]>>;
export type Functions<Table extends FunctionTable> = {
  readonly [Name in keyof Table]: (...values: NativeArguments<Table[Name]>) => number;
};

const nativeTypes: Readonly<Record<ArgumentType, NativeType>> = {
  int: "int32",
  uint: "uint32",
  int64: "int64",
  uint64: "uint64",
  pointer: "address",
  size: "uint64",
};

export function nativeType(type: ArgumentType): NativeType {
  return nativeTypes[type];
}

/** Binds every function of `table`. Throws DeviceError naming the one that is missing. */
export function bindFunctions<const Table extends FunctionTable>(
  library: NativeLibrary,
  table: Table,
  hint: string,
): Functions<Table> {
  const functions: Record<string, NativeFunction<number>> = {};
  for (const [name, types] of Object.entries(table)) {
    try {
      functions[name] = library.define(name, "int32", types.map(nativeType));
    } catch (error) {
      throw new DeviceError("cuda", `expected ${name} in ${library.path}, got ${messageOf(error)}`, { hint });
    }
  }
  return functions as Functions<Table>;
}

/**
 * A few words of memory that native calls read from and write to. Its address never changes; keep a reference to it for as
 * long as native code may use it.
 */
export class NativeWords {
  readonly address: number;
  readonly byteLength: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly u64: BigUint64Array<ArrayBuffer>;
  readonly u32: Uint32Array<ArrayBuffer>;
  readonly i32: Int32Array<ArrayBuffer>;
  readonly f32: Float32Array<ArrayBuffer>;
  readonly f64: Float64Array<ArrayBuffer>;

  constructor(numWords: number) {
    const memory = new ArrayBuffer(numWords * 8);
    this.address = addressOfMemory(memory);
    this.byteLength = memory.byteLength;
    this.bytes = new Uint8Array(memory);
    this.u64 = new BigUint64Array(memory);
    this.u32 = new Uint32Array(memory);
    this.i32 = new Int32Array(memory);
    this.f32 = new Float32Array(memory);
    this.f64 = new Float64Array(memory);
  }

  /** The 64-bit word at `index` as a number. */
  word(index: number): number {
    return this.u32[2 * index] + this.u32[2 * index + 1] * 2 ** 32;
  }

  setWord(index: number, value: number): void {
    this.u32[2 * index] = value >>> 0;
    this.u32[2 * index + 1] = Math.floor(value / 2 ** 32);
  }

  /** The zero-terminated text at byte `offset`. */
  text(offset = 0): string {
    const end = this.bytes.indexOf(0, offset);
    return new TextDecoder().decode(this.bytes.subarray(offset, end < 0 ? undefined : end));
  }

  /** Memory holding `text` and a zero. */
  static ofText(text: string): NativeWords {
    const encoded = new TextEncoder().encode(text);
    const words = new NativeWords(Math.ceil((encoded.byteLength + 1) / 8));
    words.bytes.set(encoded);
    return words;
  }
}
