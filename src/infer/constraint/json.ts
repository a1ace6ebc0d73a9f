/** The texts of JSON (RFC 8259), with little room for whitespace: none, a space, or a line break and its indentation. */
import { characters, choice, literal, optional, repeat, rule, sequence } from "./grammar.ts";
import type { Expression, Range } from "./grammar.ts";

function bytes(...ranges: readonly Range[]): Expression {
  return { kind: "bytes", ranges };
}

export const digit = bytes([0x30, 0x39]);
export const nonZeroDigit = bytes([0x31, 0x39]);
const hex = bytes([0x30, 0x39], [0x41, 0x46], [0x61, 0x66]);
const deepest = 20;

const shortEscapes: ReadonlyMap<number, string> = new Map([
  [8, "\\b"],
  [9, "\\t"],
  [10, "\\n"],
  [12, "\\f"],
  [13, "\\r"],
  [0x22, '\\"'],
  [0x5c, "\\\\"],
]);

function isPlain(point: number): boolean {
  return point > 0x1f && point !== 0x22 && point !== 0x5c;
}

/** One of these code points inside of a string: escaped only where it must be. */
export function stringCharacters(ranges: readonly Range[]): Expression {
  const plain: Range[] = [];
  const escaped: Expression[] = [];
  for (const [low, high] of ranges) {
    let first = low;
    // All that must be escaped is below 0x5d.
    for (let point = low; point <= Math.min(high, 0x5c); point++) {
      if (isPlain(point)) continue;
      if (first < point) plain.push([first, point - 1]);
      first = point + 1;
      escaped.push(literal(shortEscapes.get(point) ?? `\\u${point.toString(16).padStart(4, "0")}`));
    }
    if (first <= high) plain.push([first, high]);
  }
  return choice(...(plain.length === 0 ? [] : [characters(plain)]), ...escaped);
}

const anyCharacter = choice(
  characters([
    [0x20, 0x21],
    [0x23, 0x5b],
    [0x5d, 0x10ffff],
  ]),
  sequence(
    literal("\\"),
    choice(
      bytes(
        ...Array.from('"\\/bfnrt', (character): Range => [character.charCodeAt(0), character.charCodeAt(0)]),
      ),
      sequence(
        literal("u"),
        choice(
          sequence(
            bytes([0x30, 0x39], [0x41, 0x43], [0x45, 0x46], [0x61, 0x63], [0x65, 0x66]),
            hex,
            hex,
            hex,
          ),
          sequence(bytes([0x44, 0x44], [0x64, 0x64]), bytes([0x30, 0x37]), hex, hex),
        ),
      ),
    ),
  ),
);

export const integer = sequence(
  optional(literal("-")),
  choice(literal("0"), sequence(nonZeroDigit, repeat(digit, 0))),
);
const number = sequence(
  integer,
  optional(sequence(literal("."), repeat(digit, 1))),
  optional(
    sequence(
      bytes([0x45, 0x45], [0x65, 0x65]),
      optional(bytes([0x2b, 0x2b], [0x2d, 0x2d])),
      repeat(digit, 1),
    ),
  ),
);

/** A string of so many characters. */
export function stringOfLength(min: number, max: number | undefined): Expression {
  return sequence(literal('"'), repeat(rule("character"), min, max), literal('"'));
}

/** `body` between brackets, members parted by commas. */
export function listOf(open: string, member: Expression, close: string): Expression {
  const { comma, space } = json;
  const members = sequence(member, repeat(sequence(comma, member), 0));
  return sequence(literal(open), space, optional(sequence(members, space)), literal(close));
}

/** Rules that every JSON grammar has, by name. */
export const json = {
  space: rule("space"),
  comma: sequence(rule("space"), literal(","), rule("space")),
  colon: sequence(rule("space"), literal(":"), rule("space")),
  value: rule("value"),
  object: rule("object"),
  array: rule("array"),
  string: rule("string"),
  number: rule("number"),
} as const;

export function jsonRules(): Map<string, Expression> {
  const { colon, value, object, array, string, number: numberRule } = json;
  return new Map<string, Expression>([
    ["space", optional(choice(literal(" "), sequence(literal("\n"), repeat(literal(" "), 0, deepest))))],
    ["character", anyCharacter],
    ["string", sequence(literal('"'), repeat(rule("character"), 0), literal('"'))],
    ["number", number],
    ["value", choice(object, array, string, numberRule, literal("true"), literal("false"), literal("null"))],
    ["object", listOf("{", sequence(string, colon, value), "}")],
    ["array", listOf("[", value, "]")],
  ]);
}
