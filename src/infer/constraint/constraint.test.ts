/** Constraints against independent judges: JavaScript's own regular expressions, and ajv on texts written at random under the mask. */
import { Ajv2020 } from "ajv/dist/2020.js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { invariant } from "../../base/index.ts";
import type { Tokenizer } from "../../text/index.ts";
import type { OutputConstraint } from "../engine/contract.ts";
import { Automaton, dead } from "./automaton.ts";
import { GrammarCompiler } from "./compiler.ts";
import { parseRegex } from "./regex.ts";

/** All single bytes, some longer pieces that cross what grammars keep apart, and an end. */
const pieces = [
  ...Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)),
  ...[
    '{"',
    '":',
    '", "',
    '"}',
    "true",
    "fal",
    "se",
    "null",
    "12",
    "-",
    "é",
    "日本",
    '\\"',
    "]}",
    '": {"',
    "e+",
    "000",
  ].map((text) => new TextEncoder().encode(text)),
  new Uint8Array(0),
];
const endToken = pieces.length - 1;
const tokenizer: Tokenizer = {
  vocabSize: pieces.length,
  bosId: undefined,
  eosId: endToken,
  padId: undefined,
  unkId: undefined,
  specialTokens: new Map([["</s>", endToken]]),
  encode: (text) => Int32Array.from(new TextEncoder().encode(text)),
  encodeBytes: (bytes) => Int32Array.from(bytes),
  decode: (ids) => new TextDecoder().decode(join([...ids])),
  decodeBytes: (ids) => join([...ids]),
  createDecoder: () => ({ push: () => "", flush: () => "" }),
  idOf: () => undefined,
  pieceOf: (id) => String(id),
};

function join(ids: readonly number[]): Uint8Array {
  return Uint8Array.from(ids.flatMap((id) => Array.from(pieces[id])));
}

const compiler = new GrammarCompiler(tokenizer, pieces.length);

/** Writes under the constraint, taking the allowed token that each number chooses, an end as soon as it likes after some. */
function write(constraint: OutputConstraint, choices: () => number, limit: number): string | undefined {
  const state = compiler.compile(constraint).start([endToken]);
  const ids: number[] = [];
  while (!state.isComplete) {
    const mask = state.allowed();
    const allowed = pieces
      .keys()
      .filter((id) => ((mask[id >> 5] >>> (id & 31)) & 1) === 1)
      .toArray();
    expect(allowed.length).toBeGreaterThan(0);
    if (ids.length > limit / 2 && allowed.includes(endToken)) break;
    // Given up: the rest of an open text is nobody's to judge.
    if (ids.length > limit) return undefined;
    // Prefers what closes when it grows long.
    const closing = allowed.filter((id) => ['"', "}", "]", '"}', "]}"].includes(tokenizer.decode([id])));
    const from = ids.length > limit / 4 && closing.length > 0 ? closing : allowed;
    const id = from[choices() % from.length];
    if (id === endToken) break;
    state.advance(id);
    ids.push(id);
  }
  return new TextDecoder("utf-8", { fatal: true }).decode(join(ids));
}

function accepts(automaton: Automaton, text: string): boolean {
  let state = automaton.start;
  for (const byte of new TextEncoder().encode(text)) {
    state = automaton.next(state, byte);
    if (state === dead) return false;
  }
  return automaton.isAccepting(state);
}

const atoms = fc.constantFrom(
  "a",
  "b",
  "é",
  "日",
  ".",
  "[ab]",
  "[^a]",
  "\\d",
  "\\w",
  "\\S",
  "[a-cé-ü]",
  "\\u00e9",
  "(?:ab|c)",
  "\\n",
  "\\.",
);
const patterns = fc.letrec<{ pattern: string; term: string }>((tie) => ({
  term: fc
    .tuple(
      // Not deeper: JavaScript's own engine, the judge, goes back exponentially often in nested repetitions.
      fc.oneof(
        { maxDepth: 2 },
        atoms,
        tie("pattern").map((inner) => `(${inner})`),
      ),
      fc.constantFrom("", "*", "+", "?", "{2}", "{1,3}", "{0,}", "+?"),
    )
    .map(([atom, count]) => atom + count),
  pattern: fc
    .tuple(fc.array(tie("term"), { minLength: 1, maxLength: 3 }), fc.option(tie("term"), { nil: undefined }))
    .map(([terms, other]) => (other === undefined ? terms.join("") : `${terms.join("")}|${other}`)),
})).pattern;

describe("regular expressions", () => {
  it("accept what JavaScript's accept", () => {
    const texts = fc.array(
      fc
        .array(fc.constantFrom("a", "b", "c", "é", "日", "1", ".", "\n", " "), { maxLength: 6 })
        .map((list) => list.join("")),
      { minLength: 5, maxLength: 20 },
    );
    let numAccepted = 0;
    fc.assert(
      fc.property(patterns, texts, (pattern, list) => {
        const judge = new RegExp(`^(?:${pattern})$`, "u");
        const whole = new Automaton({ root: parseRegex(pattern), rules: new Map() });
        const search = new Automaton({ root: parseRegex(pattern, { isSearch: true }), rules: new Map() });
        for (const text of list) {
          expect(accepts(whole, text)).toBe(judge.test(text));
          expect(accepts(search, text)).toBe(new RegExp(pattern, "u").test(text));
          numAccepted += Number(judge.test(text));
        }
      }),
      { numRuns: 300 },
    );
    expect(numAccepted).toBeGreaterThan(100);
  });

  it("are written under the mask as they say", () => {
    for (const pattern of [
      "\\d{3}-\\d{4}",
      "(yes|no|vielleicht)",
      "[A-Z][a-zé]{2,8}( [A-Z]\\.)?",
      "日本(語|人)+!",
    ]) {
      fc.assert(
        fc.property(fc.infiniteStream(fc.nat(10_000)), (stream) => {
          const text = write({ kind: "regex", pattern }, () => stream.next().value ?? 0, 60);
          if (text !== undefined) expect(text).toMatch(new RegExp(`^(?:${pattern})$`, "u"));
        }),
        { numRuns: 50 },
      );
    }
  });

  it.each([
    ["(?=a)b", "lookaround"],
    ["(a)\\1", "\\1"],
    ["a{3,1}", "the count {3,1}"],
    ["[z-a]", "a range that is none"],
    ["(a", "a group that does not end"],
    ["*a", "'*' with nothing before it"],
    ["\\bword", "\\b"],
  ])("refuse %s", (pattern, message) => {
    expect(() => parseRegex(pattern)).toThrow(message);
  });
});

const person = {
  type: "object",
  properties: {
    name: { type: "string", minLength: 1, maxLength: 12 },
    age: { type: "integer", minimum: 0, maximum: 129 },
    score: { type: "number" },
    level: { type: "integer", exclusiveMinimum: -7, maximum: 12 },
    kind: { enum: ["a", 'quo"te', 3, null, { deep: [1] }] },
    code: { type: "string", pattern: '^[A-Z"\\\\]{2}-\\d+$' },
    tags: { type: "array", items: { type: "string" }, minItems: 1, maxItems: 3 },
    pair: { type: "array", prefixItems: [{ type: "boolean" }, { type: "null" }], items: false, minItems: 2 },
    parent: { anyOf: [{ $ref: "#" }, { type: "null" }] },
    extra: { type: "object", additionalProperties: { type: ["integer", "boolean"] } },
    version: { const: 2 },
  },
  required: ["name", "age", "kind", "pair"],
  additionalProperties: false,
};

const union = {
  $defs: {
    cat: {
      type: "object",
      properties: { type: { const: "cat" }, lives: { type: "integer", maximum: 9 } },
      required: ["type", "lives"],
    },
    dog: {
      type: "object",
      properties: { type: { const: "dog" }, age: { type: "integer", minimum: 18 } },
      required: ["type"],
    },
    list: { type: "array", items: { $ref: "#/$defs/list" } },
  },
  type: "object",
  properties: {
    pet: { oneOf: [{ $ref: "#/$defs/cat" }, { type: "string" }] },
    nested: { $ref: "#/$defs/list" },
    any: true,
  },
  required: ["any"],
};

describe("JSON schemas", () => {
  it.each([
    person,
    {
      ...union,
      properties: { ...union.properties, pet: { anyOf: [{ $ref: "#/$defs/cat" }, { $ref: "#/$defs/dog" }] } },
    },
  ])("let only valid texts be written (%#)", (schema) => {
    const validate = new Ajv2020({ strict: false }).compile(schema);
    let numWritten = 0;
    fc.assert(
      fc.property(fc.infiniteStream(fc.nat(10_000)), (stream) => {
        const text = write({ kind: "json-schema", schema }, () => stream.next().value ?? 0, 600);
        if (text === undefined) return;
        numWritten++;
        const value: unknown = JSON.parse(text);
        invariant(validate(value), `${text}: ${JSON.stringify(validate.errors)}`);
      }),
      { numRuns: 60 },
    );
    expect(numWritten).toBeGreaterThan(20);
  });

  it("let usual ways to write be", () => {
    const check = (schema: unknown, text: string): boolean => {
      const state = compiler.compile({ kind: "json-schema", schema }).start([endToken]);
      for (const byte of new TextEncoder().encode(text)) {
        const mask = state.allowed();
        if (((mask[byte >> 5] >>> (byte & 31)) & 1) === 0) return false;
        state.advance(byte);
      }
      const mask = state.allowed();
      return ((mask[endToken >> 5] >>> (endToken & 31)) & 1) === 1;
    };
    const schema = {
      type: "object",
      properties: { a: { type: "integer" }, b: { type: "array", items: { type: "number" } } },
    };
    for (const text of ['{"a": 1, "b": [1.5, -2e3]}', '{"a":1,"b":[]}', '{\n  "b": [\n    1\n  ]\n}', "{}"])
      expect(check(schema, text)).toBe(true);
    for (const text of ['{"b": [], "a": 1}', '{"a": 01}', '{"c": 1}', '{"a": 1,}', "[]", '{"a": "1"}'])
      expect(check(schema, text)).toBe(false);
    for (const [bounds, inside, outside] of [
      [{ minimum: 5, maximum: 1234 }, ["5", "99", "100", "1234"], ["4", "1235", "05", "-5", "9999"]],
      [{ minimum: -120, maximum: -7 }, ["-7", "-120", "-99"], ["-6", "-121", "0", "7"]],
      [{ minimum: 18 }, ["18", "99", "100000"], ["17", "-18"]],
      [{ maximum: 0 }, ["0", "-1", "-1000"], ["1", "-0", "-01"]],
    ] as const) {
      for (const text of inside) expect(check({ type: "integer", ...bounds }, text)).toBe(true);
      for (const text of outside) expect(check({ type: "integer", ...bounds }, text)).toBe(false);
    }
  });

  it.each([
    [{ type: "object", patternProperties: {} }, "'patternProperties'"],
    [{ type: "array", uniqueItems: true }, "'uniqueItems'"],
    [{ not: { type: "string" } }, "'not'"],
    [{ type: "number", minimum: 3 }, "'minimum'"],
    [{ oneOf: [{ type: "integer" }, { type: "number" }] }, "oneOf"],
    [{ $ref: "#/$defs/gone" }, "$ref #/$defs/gone"],
    [{ $ref: "https://example.com/schema" }, "a reference within the schema"],
    [{ $defs: { a: { $ref: "#/$defs/a" } }, $ref: "#/$defs/a" }, "does not lead to itself"],
    [{ type: "integer", minimum: 5, maximum: 4 }, "bounds with a number between them"],
    [{ type: "text" }, "type 'text'"],
    [7, "expected an object, got 7"],
  ])("refuse %j by name", (schema, message) => {
    expect(() => compiler.compile({ kind: "json-schema", schema })).toThrow(message);
  });

  it("let any JSON object be written, and nothing else", () => {
    let numWritten = 0;
    fc.assert(
      fc.property(fc.infiniteStream(fc.nat(10_000)), (stream) => {
        const text = write({ kind: "json-object" }, () => stream.next().value ?? 0, 300);
        if (text === undefined) return;
        numWritten++;
        expect(JSON.parse(text)).toBeTypeOf("object");
        expect(text.startsWith("{")).toBe(true);
      }),
      { numRuns: 60 },
    );
    expect(numWritten).toBeGreaterThan(20);
  });
});
