/** Pickle's opcodes, protocols 0 to 5 (CPython's Lib/pickletools.py): what each reads and does, and those that are refused by name. */
import type { PickleMachine } from "./pickleMachine.ts";

export type Opcode = (machine: PickleMachine) => void;

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

function decimalInteger(machine: PickleMachine, text: string): number | bigint {
  if (!/^[+-]?\d{1,4096}$/.test(text)) throw machine.broken("a decimal number that is none");
  return narrowed(BigInt(text));
}

function decimalFloat(machine: PickleMachine, text: string): number {
  const special: Readonly<Record<string, number>> = { inf: Infinity, "-inf": -Infinity, nan: NaN };
  const value = special[text] ?? Number(text);
  if (text === "" || (Number.isNaN(value) && text !== "nan")) throw machine.broken("a float that is none");
  return value;
}

const longestInteger = 4096;

function integerBytes(machine: PickleMachine, length: number): Uint8Array {
  if (length > longestInteger) throw machine.broken(`an integer of ${length} bytes`);
  return machine.input.bytes(length);
}

/** STOP: ends the pickle. */
export const stopCode = ".".charCodeAt(0);

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

export const pickleOpcodes: ReadonlyMap<number, Opcode> = new Map(
  readers.map(([code, read]) => [codeOf(code), read]),
);

/** Known and not wanted: they name classes in ways of their own, or lean on a running Python. */
export const refusedOpcodes: ReadonlyMap<number, string> = new Map(
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
