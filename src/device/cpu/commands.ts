/**
 * Commands for the native interpreter: packs an operator's arguments into 64-bit slots by the operator table. See header.ts
 * for the layout and runtime.cpp for the reader.
 */
import { dtypes, invariant } from "../../base/index.ts";
import type { TensorArgument } from "../contract.ts";
import { opNames, ops, type OpName, type OpSpec } from "../ops.ts";

interface OpLayout {
  readonly index: number;
  readonly tensors: readonly {
    readonly name: string;
    readonly isOptional: boolean;
    readonly isWritten: boolean;
  }[];
  readonly integers: readonly string[];
  readonly floats: readonly string[];
  readonly numSlots: number;
}

function layoutOf(name: OpName, index: number): OpLayout {
  const spec: OpSpec = ops[name];
  const tensors = Object.entries(spec.tensors).map(([tensor, access]) => ({
    name: tensor,
    isOptional: access.endsWith("?"),
    isWritten: !access.startsWith("read"),
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
/** Gives the address of a tensor's first element, checking that it may be used, and written where it is. */
export type AddressOf = (tensor: TensorArgument, isWritten: boolean) => number;

/** Writes commands one after another, into memory of fixed size or of its own that grows. */
export class CommandWriter {
  #words: Int32Array;
  #doubles: Float64Array;
  /** What each command is, for messages; kept by writers that grow. */
  readonly #names: (OpName | "copy")[] | undefined;
  /** Slots written so far. */
  #length = 0;

  constructor(memory?: ArrayBuffer) {
    this.#names = memory === undefined ? [] : undefined;
    const buffer = memory ?? new ArrayBuffer(1 << 14);
    this.#words = new Int32Array(buffer);
    this.#doubles = new Float64Array(buffer);
  }

  /** Starts again from the beginning. */
  clear(): void {
    this.#length = 0;
    if (this.#names !== undefined) this.#names.length = 0;
  }

  get names(): readonly string[] {
    return this.#names ?? [];
  }

  get bytes(): Uint8Array {
    return new Uint8Array(this.#words.buffer, 0, 8 * this.#length);
  }

  /** Runs for every operator: messages are made only where they are needed, and nothing of a refused command stays. */
  writeOp(name: OpName, args: PackedArguments, addressOf: AddressOf): void {
    const layout = layouts.get(name);
    if (layout === undefined) invariant(false, `no operator '${name}'`);
    const { tensors, integers, floats } = layout;
    let slot = this.#begin(layout.index, layout.numSlots);
    const words = this.#words;
    for (let i = 0; i < tensors.length; i++) {
      const tensor = args[tensors[i].name];
      if (typeof tensor === "object") {
        putInteger(words, slot, addressOf(tensor, tensors[i].isWritten));
        putInteger(words, slot + 1, dtypes[tensor.dtype].code);
      } else {
        if (!tensors[i].isOptional || tensor !== undefined) {
          invariant(false, `${name} needs tensor '${tensors[i].name}'`);
        }
        putInteger(words, slot, 0);
        putInteger(words, slot + 1, 0);
      }
      slot += 2;
    }
    for (let i = 0; i < integers.length; i++) {
      const value = args[integers[i]];
      if (typeof value !== "number" || !Number.isSafeInteger(value)) {
        invariant(false, `${name} needs a whole number '${integers[i]}', got ${JSON.stringify(value)}`);
      }
      putInteger(words, slot++, value);
    }
    for (let i = 0; i < floats.length; i++) {
      const value = args[floats[i]];
      if (typeof value !== "number") invariant(false, `${name} needs a number '${floats[i]}'`);
      this.#doubles[slot++] = value;
    }
    this.#length = slot;
    this.#names?.push(name);
  }

  writeCopy(target: number, source: number, byteLength: number): void {
    const slot = this.#begin(copyIndex, 3);
    putInteger(this.#words, slot, target);
    putInteger(this.#words, slot + 1, source);
    putInteger(this.#words, slot + 2, byteLength);
    this.#length = slot + 3;
    this.#names?.push("copy");
  }

  /** Writes a command's head and gives its first slot; the command counts once `#length` passes it. */
  #begin(index: number, numSlots: number): number {
    const neededBytes = 8 * (this.#length + headerSlots + numSlots);
    if (neededBytes > this.#words.byteLength) this.#grow(neededBytes);
    putInteger(this.#words, this.#length, index);
    putInteger(this.#words, this.#length + 1, numSlots);
    return this.#length + headerSlots;
  }

  #grow(neededBytes: number): void {
    invariant(this.#names !== undefined, "a command is longer than its memory");
    const words = new Int32Array(Math.max(neededBytes, 2 * this.#words.byteLength) / 4);
    words.set(this.#words);
    this.#words = words;
    this.#doubles = new Float64Array(words.buffer);
  }
}

/** A 64-bit integer as two little-endian halves: a tenth of the cost of a bigint. */
function putInteger(words: Int32Array, slot: number, value: number): void {
  const low = value | 0;
  words[2 * slot] = low;
  words[2 * slot + 1] = low === value ? low >> 31 : Math.floor(value / 2 ** 32);
}
