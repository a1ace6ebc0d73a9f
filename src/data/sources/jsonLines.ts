/**
 * JSON lines: one object per line. Blank lines are allowed. What is made of an object is the caller's: the text under one
 * key here, prompt and answer in flan.ts and p3.ts.
 */
import { DataError, messageOf } from "../../base/index.ts";
import { linesOf } from "./lines.ts";
import type { FileSourceOf } from "./schema.ts";
import type { ParsedDocument, RawUnit } from "./unit.ts";
import { decodeUtf8 } from "./utf8.ts";

/** A JSON object and where it stands. */
export interface JsonRecord {
  readonly value: Readonly<Record<string, unknown>>;
  readonly file: string;
  readonly line: number;
}

/** The documents of a unit of JSON lines. Throws DataError naming file and line. */
export function* parseJsonLines(
  unit: RawUnit,
  source: FileSourceOf<"json-lines">,
): Generator<ParsedDocument> {
  for (const record of jsonRecords(unit)) {
    yield { text: stringAt(record, source.textKey), line: record.line };
  }
}

/** The objects of a unit of JSON lines. Throws DataError. */
export function* jsonRecords(unit: RawUnit): Generator<JsonRecord> {
  const { file, source } = unit;
  for (const { bytes, line } of linesOf(unit)) {
    const text = decodeUtf8(bytes, { file, line, invalidUtf8: source.invalidUtf8 });
    if (text === undefined || isBlank(text)) continue;
    yield { value: parseObject(text, file, line), file, line };
  }
}

function isBlank(text: string): boolean {
  return text.length < 100 && text.trim() === "";
}

function parseObject(text: string, file: string, line: number): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new DataError("data", `expected JSON in ${file} line ${line}, got ${excerpt(text)}`, {
      hint: messageOf(error).replace(/, (\.\.\.)?".*$/s, ""),
      cause: error,
      fields: { file, line },
    });
  }
  if (isObject(value)) return value;
  throw new DataError("data", `expected a JSON object in ${file} line ${line}, got ${excerpt(text)}`, {
    fields: { file, line },
  });
}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The string under `key`. Throws DataError naming file, line and the keys there are. */
export function stringAt(record: JsonRecord, key: string): string {
  const value = record.value[key];
  // Half of a surrogate pair, which JSON can escape, is no text.
  if (typeof value === "string") return value.isWellFormed() ? value : value.toWellFormed();
  const { file, line } = record;
  const keys = Object.keys(record.value);
  throw new DataError(
    "data",
    `expected a string at key '${key}' in ${file} line ${line}, got ${value === undefined ? "nothing" : excerpt(JSON.stringify(value))}`,
    { hint: `keys there: ${keys.slice(0, 8).join(", ") || "none"}`, fields: { file, line, key } },
  );
}

function excerpt(text: string): string {
  return text.length > 40 ? `${JSON.stringify(text.slice(0, 40))}...` : JSON.stringify(text);
}
