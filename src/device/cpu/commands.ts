/**
 * Commands for the native interpreter: packs an operator's arguments into 64-bit slots by the operator table. See header.ts
 * for the layout and runtime.cpp for the reader.
 */
import { dtypes, invariant } from "../../base/index.ts";
import type { TensorArgument } from "../contract.ts";
import { opNames, ops, type OpName, type OpSpec } from "../ops.ts";

interface OpLayout {
  readonly index: number;
  readonly tensors: readonly { readonly name: string; readonly isOptional: boolean }[];
  readonly integers: readonly string[];
  readonly floats: readonly string[];
  readonly numSlots: number;
}

function layoutOf(name: OpName, index: number): OpLayout {
  const spec: OpSpec = ops[name];
  const tensors = Object.entries(spec.tensors).map(([tensor, access]) => ({
    name: tensor,
    isOptional: access.endsWith("?"),
  }));
  const numSlots = 2 * tensors.length + spec.integers.length + spec.floats.length;
  return { index, tensors, integers: spec.integers, floats: spec.floats, numSlots };
}

const layouts = new Map<string, OpLayout>(opNames.map((name, index) => [name, layoutOf(name, index)]));
/** The interpreter's own command, after the table's: copy bytes between addresses. */
const copyIndex = opNames.length;
const headerSlots = 2;

export const largestCommandBytes =
  8 * (headerSlots + Math.max(...Array.from(layouts.values(), (layout) => layout.numSlots)));

export function opIndex(name: OpName): number {
  return layouts.get(name)?.index ?? -1;
}

/** An operator's arguments by name, as the packer sees them. */
export type PackedArguments = Readonly<Record<string, TensorArgument | number | undefined>>;
/** Gives the address of a tensor's first element, checking that it may be used. */
export type AddressOf = (tensor: TensorArgument) => number;

/** Writes commands one after another, into memory of fixed size or of its own that grows. */
export class CommandWriter {
  #words: Int32Array;
  #doubles: Float64Array;
  readonly #isGrowing: boolean;
  /** Slots written so far. */
  #length = 0;
  /** What each command is, for messages. */
  readonly names: (OpName | "copy")[] = [];

  constructor(memory?: ArrayBuffer) {
    this.#isGrowing = memory === undefined;
    const buffer = memory ?? new ArrayBuffer(1 << 14);
    this.#words = new Int32Array(buffer);
    this.#doubles = new Float64Array(buffer);
  }

  clear(): void {
    this.#length = 0;
    this.names.length = 0;
  }

  get numCommands(): number {
    return this.names.length;
  }

  get bytes(): Uint8Array {
    return new Uint8Array(this.#words.buffer, 0, 8 * this.#length);
  }

  writeOp(name: OpName, args: PackedArguments, addressOf: AddressOf): void {
    const layout = layouts.get(name);
    invariant(layout !== undefined, `no operator '${name}'`);
    const start = this.#length;
    this.#begin(name, layout.index, layout.numSlots);
    try {
      for (const { name: tensorName, isOptional } of layout.tensors) {
        const tensor = args[tensorName];
        if (typeof tensor === "object") {
          this.#integer(addressOf(tensor));
          this.#integer(dtypes[tensor.dtype].code);
        } else {
          invariant(isOptional && tensor === undefined, `${name} needs tensor '${tensorName}'`);
          this.#integer(0);
          this.#integer(0);
        }
      }
      for (const integer of layout.integers) {
        const value = args[integer];
        if (typeof value !== "number" || !Number.isSafeInteger(value)) {
          invariant(false, `${name} needs a whole number '${integer}', got ${JSON.stringify(value)}`);
        }
        this.#integer(value);
      }
      for (const float of layout.floats) {
        const value = args[float];
        invariant(typeof value === "number", `${name} needs a number '${float}'`);
        this.#doubles[this.#length++] = value;
      }
    } catch (error) {
      // Nothing of a command that cannot run stays in a recording.
      this.#length = start;
      this.names.pop();
      throw error;
    }
  }

  writeCopy(target: number, source: number, byteLength: number): void {
    this.#begin("copy", copyIndex, 3);
    this.#integer(target);
    this.#integer(source);
    this.#integer(byteLength);
  }

  #begin(name: OpName | "copy", index: number, numSlots: number): void {
    const needed = 8 * (this.#length + headerSlots + numSlots);
    if (needed > this.#words.byteLength) this.#grow(needed);
    this.#integer(index);
    this.#integer(numSlots);
    this.names.push(name);
  }

  #grow(neededBytes: number): void {
    invariant(this.#isGrowing, "a command is longer than its memory");
    const words = new Int32Array(Math.max(neededBytes, 2 * this.#words.byteLength) / 4);
    words.set(this.#words);
    this.#words = words;
    this.#doubles = new Float64Array(words.buffer);
  }

  /** A 64-bit integer as two little-endian halves: a tenth of the cost of a bigint. */
  #integer(value: number): void {
    const word = 2 * this.#length++;
    this.#words[word] = value | 0;
    this.#words[word + 1] = Math.floor(value / 2 ** 32);
  }
}
