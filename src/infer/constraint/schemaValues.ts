/** Reading the values of a JSON schema's keywords, with errors that say where. */
import { RequestError } from "../../base/index.ts";

export type Schema = Readonly<Record<string, unknown>>;

export const annotations = [
  "title",
  "description",
  "default",
  "examples",
  "$schema",
  "$id",
  "$comment",
  "$anchor",
  "deprecated",
  "readOnly",
  "writeOnly",
  "format",
  "contentEncoding",
  "contentMediaType",
  "$defs",
  "definitions",
  "discriminator",
];
/** What each type's own keywords are. */
export const keywordsOf: Readonly<Record<string, readonly string[]>> = {
  string: ["minLength", "maxLength", "pattern"],
  integer: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"],
  number: [],
  object: ["properties", "required", "additionalProperties"],
  array: ["items", "prefixItems", "minItems", "maxItems"],
  boolean: [],
  null: [],
};
const general = ["type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"];
const mostRepeats = 20_000;

export function refused(at: string, got: string, expected: string): RequestError {
  return new RequestError("constraint", `expected ${expected}, got ${got} at ${at} of the JSON schema`);
}

export function asSchema(value: unknown, at: string): Schema {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw refused(at, JSON.stringify(value), "an object");
  return Object.fromEntries(Object.entries(value));
}

export function asArray(value: unknown, at: string): readonly unknown[] {
  if (!Array.isArray(value)) throw refused(at, JSON.stringify(value), "a list");
  return value;
}

export function checkKeywords(schema: Schema, allowed: readonly string[], at: string): void {
  for (const keyword of Object.keys(schema)) {
    if (allowed.includes(keyword)) continue;
    const isKnown =
      general.includes(keyword) || Object.values(keywordsOf).some((list) => list.includes(keyword));
    throw refused(
      at,
      `'${keyword}'`,
      isKnown ? "keywords that go together" : "keywords that can be held to while writing",
    );
  }
}

export function typesOf(schema: Schema, at: string): string[] {
  const { type } = schema;
  if (type === undefined) {
    // Without a type, the keywords say which one is meant.
    const implied = Object.keys(keywordsOf).filter((name) =>
      keywordsOf[name].some((keyword) => keyword in schema),
    );
    return implied.length === 0 ? ["string"] : implied;
  }
  const types = (Array.isArray(type) ? type : [type]).map((name) =>
    typeof name === "string" ? name : JSON.stringify(name),
  );
  for (const name of types)
    if (!(name in keywordsOf))
      throw refused(at, `type '${name}'`, `a type of ${Object.keys(keywordsOf).join(", ")}`);
  return types;
}

export function count(schema: Schema, keyword: string, at: string): number | undefined {
  const value = schema[keyword];
  if (value === undefined) return undefined;
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0)
    throw refused(at, `${keyword} ${JSON.stringify(value)}`, "a whole number");
  if (value > mostRepeats) throw refused(at, `${keyword} ${value}`, `${keyword} of at most ${mostRepeats}`);
  return value;
}

export function bound(schema: Schema, keyword: string, at: string): number | undefined {
  const value = schema[keyword];
  if (value === undefined) return undefined;
  if (typeof value !== "number" || !(Math.abs(value) <= Number.MAX_SAFE_INTEGER))
    throw refused(at, `${keyword} ${JSON.stringify(value)}`, "a number within 2^53");
  return value;
}

export function isOfType(value: unknown, type: string): boolean {
  if (type === "null") return value === null;
  if (type === "array") return Array.isArray(value);
  if (type === "integer") return Number.isInteger(value);
  if (type === "object") return typeof value === "object" && value !== null && !Array.isArray(value);
  return typeof value === type;
}

/** Whether no value can be of two of the schemas: their types differ, or a property that both require is another constant. */
export function arePairwiseDisjoint(options: readonly unknown[]): boolean {
  const schemas = options.map((option, index) => asSchema(option, `#/oneOf/${index}`));
  return schemas.every((a, i) => schemas.slice(i + 1).every((b) => haveNothingInCommon(a, b)));
}

function haveNothingInCommon(a: Schema, b: Schema): boolean {
  if (typeof a["type"] === "string" && typeof b["type"] === "string" && a["type"] !== b["type"]) {
    return ![a["type"], b["type"]].every((type) => type === "integer" || type === "number");
  }
  const [constantsA, constantsB] = [requiredConstants(a), requiredConstants(b)];
  return [...constantsA].some(([name, value]) => constantsB.has(name) && constantsB.get(name) !== value);
}

function requiredConstants({ properties, required }: Schema): Map<string, string> {
  const constants = new Map<string, string>();
  if (typeof properties !== "object" || properties === null || !Array.isArray(required)) return constants;
  for (const [name, value] of Object.entries(properties)) {
    if (required.includes(name) && typeof value === "object" && value !== null && "const" in value)
      constants.set(name, JSON.stringify(value.const));
  }
  return constants;
}
