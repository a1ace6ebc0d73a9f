/**
 * A restricted reader of Python pickles, protocols 0 to 5 (opcodes: CPython's Lib/pickletools.py). It builds plain values and the
 * few named things its caller lists; it has no way to call anything else, and any other name or opcode is refused by its name.
 *
 * Python's values become: None null, int number (bigint beyond 2^53), float number, str string, bytes Uint8Array, list and tuple
 * arrays, dict Map, set Set. Objects of listed classes become what the caller's builder gives, usually a PickleRecord.
 */
import { CheckpointError } from "../../base/index.ts";
import type { ByteCursor } from "../cursor.ts";

/** A Python object without its class's code: the class's name and the object's attributes. */
export class PickleRecord {
  readonly className: string;
  readonly args: readonly unknown[];
  readonly fields = new Map<unknown, unknown>();

  constructor(className: string, args: readonly unknown[]) {
    this.className = className;
    this.args = args;
  }
}

/** A name that the pickle refers to, as a value (a dtype, a class). */
export class PickleGlobal {
  readonly name: string;
  /** What calling it gives, from its arguments; absent for plain names. */
  readonly build: GlobalBuilder | undefined;

  constructor(name: string, build: GlobalBuilder | undefined) {
    this.name = name;
    this.build = build;
  }
}

export type GlobalBuilder = (args: readonly unknown[], name: string) => unknown;

export interface PickleRules {
  /** The builder of a global by its full name ("collections.OrderedDict"); "name" for one that is only a value; undefined refuses it. */
  global(name: string): GlobalBuilder | "name" | undefined;
  /** The object behind a persistent id. */
  persistent?(id: unknown): unknown;
}

/** Builder of an object kept as its attributes. */
export const asRecord: GlobalBuilder = (args, name) => new PickleRecord(name, args);

const mark = Symbol("mark");

/** Reads one pickle and leaves the input after its end. Throws CheckpointError. */
export function readPickle(input: ByteCursor, rules: PickleRules): unknown {
  return new Machine(input, rules).run();
}

type Opcode = (machine: Machine) => void;

class Machine {
  readonly input: ByteCursor;
  readonly #rules: PickleRules;
  readonly #stack: unknown[] = [];
  readonly #memo = new Map<number, unknown>();

  constructor(input: ByteCursor, rules: PickleRules) {
    this.input = input;
    this.#rules = rules;
  }

  run(): unknown {
    for (;;) {
      const code = this.input.u8();
      if (code === stop) return this.pop();
      const opcode = opcodes.get(code);
      if (opcode === undefined) throw this.#refusedOpcode(code);
      opcode(this);
    }
  }

  broken(got: string): CheckpointError {
    return new CheckpointError("pickle", `expected a well-formed pickle in ${this.input.path}, got ${got}`, {
      fields: { path: this.input.path, position: this.input.position },
    });
  }

  #refusedOpcode(code: number): CheckpointError {
    const name = refusedOpcodes.get(code);
    if (name === undefined) return this.broken(`an unknown opcode 0x${code.toString(16)}`);
    return this.refused(`the opcode ${name}`);
  }

  refused(what: string): CheckpointError {
    return new CheckpointError(
      "pickle",
      `expected tensors and plain values in ${this.input.path}, got ${what}`,
      {
        hint: "a pickle can name any code; Nautilus runs none of it and refuses what it does not know",
        fields: { path: this.input.path, refused: what },
      },
    );
  }

  push(value: unknown): void {
    this.#stack.push(value);
  }

  #popAny(): unknown {
    if (this.#stack.length === 0) throw this.broken("a value taken from an empty stack");
    return this.#stack.pop();
  }

  pop(): unknown {
    const value = this.#popAny();
    if (value === mark) throw this.broken("a mark where a value should be");
    return value;
  }

  top(): unknown {
    const value = this.pop();
    this.push(value);
    return value;
  }

  /** For the opcode POP, which drops marks too. */
  drop(): void {
    this.#popAny();
  }

  pushMark(): void {
    this.push(mark);
  }

  /** The values above the last mark, in order. */
  popToMark(): unknown[] {
    const at = this.#stack.lastIndexOf(mark);
    if (at < 0) throw this.broken("no mark");
    const values = this.#stack.splice(at + 1);
    this.#stack.pop();
    return values;
  }

  popText(): string {
    const value = this.pop();
    if (typeof value !== "string") throw this.broken(`${typeof value} where a text should be`);
    return value;
  }

  popArgs(): readonly unknown[] {
    const value = this.pop();
    if (!Array.isArray(value)) throw this.broken("arguments that are not a tuple");
    return value;
  }

  popList(): unknown[] {
    const value = this.pop();
    if (!Array.isArray(value)) throw this.broken("items added to something that is not a list");
    return value;
  }

  setItems(pairs: readonly unknown[]): void {
    const target = this.top();
    if (!(target instanceof Map)) throw this.broken("items set in something that is not a dict");
    if (pairs.length % 2 !== 0) throw this.broken("a key without a value");
    for (let i = 0; i < pairs.length; i += 2) target.set(pairs[i], pairs[i + 1]);
  }

  memoize(index: number): void {
    this.#memo.set(index, this.top());
  }

  memoizeNext(): void {
    this.memoize(this.#memo.size);
  }

  recall(index: number): void {
    if (!this.#memo.has(index)) throw this.broken(`no value remembered as ${index}`);
    this.push(this.#memo.get(index));
  }

  pushGlobal(module: string, name: string): void {
    const full = `${module}.${name}`;
    const rule = this.#rules.global(full);
    if (rule === undefined) throw this.refused(full);
    this.push(new PickleGlobal(full, rule === "name" ? undefined : rule));
  }

  /** REDUCE and NEWOBJ: the global below the arguments, built. */
  build(): void {
    const args = this.popArgs();
    const target = this.pop();
    if (!(target instanceof PickleGlobal)) throw this.refused("a call of something that is not a global");
    if (target.build === undefined) throw this.refused(`a call of ${target.name}`);
    this.push(target.build(args, target.name));
  }

  /** BUILD: an object's attributes. Those of dicts (a state dict's version notes) and of listed values say nothing we need. */
  setState(): void {
    const state = this.pop();
    const target = this.top();
    if (!(target instanceof PickleRecord)) return;
    // A pair is (attributes, slots); anything else is the class's own form, kept for those who know it.
    const parts = Array.isArray(state) && state.length === 2 ? state : [state];
    if (parts.every((part) => part instanceof Map || part === null)) {
      for (const part of parts)
        if (part instanceof Map) for (const [key, value] of part) target.fields.set(key, value);
    } else target.fields.set("__state__", state);
  }

  persistent(id: unknown): void {
    if (this.#rules.persistent === undefined) throw this.refused("a persistent id");
    this.push(this.#rules.persistent(id));
  }
}

/** Little-endian two's complement of any length. */
function integerOf(bytes: Uint8Array): number | bigint {
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]);
  return narrowed(BigInt.asIntN(bytes.length * 8, value));
}

function narrowed(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function decimalInteger(machine: Machine, text: string): number | bigint {
  if (!/^[+-]?\d{1,4096}$/.test(text)) throw machine.broken("a decimal number that is none");
  return narrowed(BigInt(text));
}

function decimalFloat(machine: Machine, text: string): number {
  const special: Readonly<Record<string, number>> = { inf: Infinity, "-inf": -Infinity, nan: NaN };
  const value = special[text] ?? Number(text);
  if (text === "" || (Number.isNaN(value) && text !== "nan")) throw machine.broken("a float that is none");
  return value;
}

const longestInteger = 4096;

function integerBytes(machine: Machine, length: number): Uint8Array {
  if (length > longestInteger) throw machine.broken(`an integer of ${length} bytes`);
  return machine.input.bytes(length);
}

const stop = ".".charCodeAt(0);

const readers: readonly (readonly [string | number, Opcode])[] = [
  [
    0x80,
    (m) => {
      const protocol = m.input.u8();
      if (protocol > 5) throw m.refused(`pickle protocol ${protocol}`);
    },
  ],
  // FRAME: a hint for readers that buffer.
  [0x95, (m) => void m.input.u64()],
  ["(", (m) => m.pushMark()],
  ["0", (m) => m.drop()],
  ["1", (m) => void m.popToMark()],
  ["2", (m) => m.push(m.top())],
  // Plain values.
  ["N", (m) => m.push(null)],
  [0x88, (m) => m.push(true)],
  [0x89, (m) => m.push(false)],
  [
    "I",
    (m) => {
      const text = m.input.line();
      // Protocol 0 writes booleans so.
      m.push(text === "01" ? true : text === "00" ? false : decimalInteger(m, text));
    },
  ],
  ["L", (m) => m.push(decimalInteger(m, m.input.line().replace(/L$/, "")))],
  ["J", (m) => m.push(m.input.i32())],
  ["K", (m) => m.push(m.input.u8())],
  ["M", (m) => m.push(m.input.u16())],
  [0x8a, (m) => m.push(integerOf(m.input.bytes(m.input.u8())))],
  [0x8b, (m) => m.push(integerOf(integerBytes(m, m.input.u32())))],
  ["F", (m) => m.push(decimalFloat(m, m.input.line()))],
  ["G", (m) => m.push(m.input.f64BigEndian())],
  ["T", (m) => m.push(m.input.text(m.input.u32()))],
  ["U", (m) => m.push(m.input.text(m.input.u8()))],
  ["V", (m) => m.push(m.input.line())],
  ["X", (m) => m.push(m.input.text(m.input.u32()))],
  [0x8c, (m) => m.push(m.input.text(m.input.u8()))],
  [0x8d, (m) => m.push(m.input.text(m.input.u64()))],
  ["B", (m) => m.push(m.input.bytes(m.input.u32()))],
  ["C", (m) => m.push(m.input.bytes(m.input.u8()))],
  [0x8e, (m) => m.push(m.input.bytes(m.input.u64()))],
  [0x96, (m) => m.push(m.input.bytes(m.input.u64()))],
  // Containers.
  ["]", (m) => m.push([])],
  ["l", (m) => m.push(m.popToMark())],
  [")", (m) => m.push([])],
  ["t", (m) => m.push(m.popToMark())],
  [0x85, (m) => m.push([m.pop()])],
  [
    0x86,
    (m) => {
      const second = m.pop();
      m.push([m.pop(), second]);
    },
  ],
  [
    0x87,
    (m) => {
      const third = m.pop();
      const second = m.pop();
      m.push([m.pop(), second, third]);
    },
  ],
  ["}", (m) => m.push(new Map())],
  [
    "d",
    (m) => {
      const pairs = m.popToMark();
      m.push(new Map());
      m.setItems(pairs);
    },
  ],
  [
    "a",
    (m) => {
      const value = m.pop();
      const list = m.popList();
      list.push(value);
      m.push(list);
    },
  ],
  [
    "e",
    (m) => {
      const values = m.popToMark();
      const list = m.popList();
      for (const value of values) list.push(value);
      m.push(list);
    },
  ],
  [
    "s",
    (m) => {
      const value = m.pop();
      m.setItems([m.pop(), value]);
    },
  ],
  ["u", (m) => m.setItems(m.popToMark())],
  [0x8f, (m) => m.push(new Set())],
  [
    0x90,
    (m) => {
      const values = m.popToMark();
      const target = m.top();
      if (!(target instanceof Set)) throw m.broken("items added to something that is not a set");
      for (const value of values) target.add(value);
    },
  ],
  [0x91, (m) => m.push(new Set(m.popToMark()))],
  // What was seen before.
  ["p", (m) => m.memoize(Number(decimalInteger(m, m.input.line())))],
  ["q", (m) => m.memoize(m.input.u8())],
  ["r", (m) => m.memoize(m.input.u32())],
  [0x94, (m) => m.memoizeNext()],
  ["g", (m) => m.recall(Number(decimalInteger(m, m.input.line())))],
  ["h", (m) => m.recall(m.input.u8())],
  ["j", (m) => m.recall(m.input.u32())],
  // Names and what is built from them.
  [
    "c",
    (m) => {
      const module = m.input.line();
      m.pushGlobal(module, m.input.line());
    },
  ],
  [
    0x93,
    (m) => {
      const name = m.popText();
      m.pushGlobal(m.popText(), name);
    },
  ],
  ["R", (m) => m.build()],
  [0x81, (m) => m.build()],
  ["b", (m) => m.setState()],
  ["Q", (m) => m.persistent(m.pop())],
];

function codeOf(code: string | number): number {
  return typeof code === "string" ? code.charCodeAt(0) : code;
}

const opcodes: ReadonlyMap<number, Opcode> = new Map(readers.map(([code, read]) => [codeOf(code), read]));

/** Known and not wanted: they name classes in ways of their own, or lean on a running Python. */
const refusedOpcodes: ReadonlyMap<number, string> = new Map(
  (
    [
      ["i", "INST"],
      ["o", "OBJ"],
      ["P", "PERSID"],
      ["S", "STRING"],
      [0x82, "EXT1"],
      [0x83, "EXT2"],
      [0x84, "EXT4"],
      [0x92, "NEWOBJ_EX"],
      [0x97, "NEXT_BUFFER"],
      [0x98, "READONLY_BUFFER"],
    ] as const
  ).map(([code, name]) => [codeOf(code), name]),
);
