/**
 * Rows of a data file, whatever its format: JSON lines, a JSON array, a JSON document with nested rows, CSV and TSV, Parquet, and a
 * bare list of labels; packed with gzip or zstd or not. A row knows its place, so that a malformed one can be named.
 */
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { DataError, messageOf, withFileErrors } from "../../base/index.ts";
import { parseCsv } from "./csv.ts";

export interface DataRow {
  readonly value: unknown;
  /** "FILE line 7" */
  readonly place: string;
}

export interface ReadOptions {
  /** Names of the columns of a CSV file without a header. */
  columns?: readonly string[];
  /** Makes rows of a JSON document that nests them. */
  expand?: (document: unknown) => readonly unknown[];
}

/** All rows of a file. Throws DataError naming file and line, FileError. */
export async function readRows(path: string, options: ReadOptions = {}): Promise<DataRow[]> {
  const plain = path.replace(/\.(gz|zst)$/, "");
  const bytes = unpack(path);
  if (plain.endsWith(".parquet")) return await parquetRows(path, bytes);
  const text = decodeUtf8(path, bytes);
  if (plain.endsWith(".jsonl") || plain.endsWith(".ndjson")) return jsonLineRows(path, text);
  if (plain.endsWith(".json")) return jsonRows(path, text, options);
  if (plain.endsWith(".csv")) return csvRows(path, parseCsv(text, ",", path), options);
  if (plain.endsWith(".tsv")) return csvRows(path, parseCsv(text, "\t", path), options);
  // Labels, and FLORES's sentences.
  if (/\.(lst|txt|dev|devtest)$/.test(plain)) {
    return linesOf(text).map((line, index) => ({ value: line, place: `${path} line ${index + 1}` }));
  }
  throw new DataError("eval", `expected .jsonl, .json, .csv, .tsv or .parquet, got ${basename(path)}`, {
    hint: "packed with .gz or .zst they are read too",
  });
}

function unpack(path: string): Uint8Array {
  const bytes = withFileErrors("eval", "a readable data file", path, () => readFileSync(path));
  try {
    if (path.endsWith(".gz")) return gunzipSync(bytes);
    return path.endsWith(".zst") ? zstdDecompressSync(bytes) : bytes;
  } catch (error) {
    throw new DataError("eval", `expected a packed file at ${path}, got ${messageOf(error)}`, {
      hint: "is it whole?",
      cause: error,
    });
  }
}

function decodeUtf8(path: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new DataError("eval", `expected UTF-8 in ${path}, got other bytes`, { cause: error });
  }
}

/** Lines without their ends; a newline at the end begins no further line. */
function linesOf(text: string): string[] {
  // Only newlines end a line: U+2028 and U+0085 stand inside real questions.
  const lines = text.split("\n").map((line) => (line.endsWith("\r") ? line.slice(0, -1) : line));
  if (lines.at(-1) === "") lines.pop();
  return lines;
}

function jsonLineRows(path: string, text: string): DataRow[] {
  return linesOf(text).flatMap((line, index) => {
    if (line.trim() === "") return [];
    const place = `${path} line ${index + 1}`;
    return [{ value: parseJson(line, place), place }];
  });
}

function jsonRows(path: string, text: string, { expand }: ReadOptions): DataRow[] {
  const document = parseJson(text, path);
  const rows = Array.isArray(document) ? document : expand?.(document);
  if (rows === undefined) throw new DataError("eval", `expected a JSON array in ${path}, got another value`);
  return rows.map((value: unknown, index) => ({ value, place: `${path} item ${index + 1}` }));
}

function parseJson(text: string, place: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new DataError("eval", `expected JSON in ${place}, got ${excerpt(text)}`, {
      hint: messageOf(error).replace(/, (\.\.\.)?".*$/s, ""),
      cause: error,
    });
  }
}

function csvRows(
  path: string,
  records: readonly { fields: readonly string[]; line: number }[],
  { columns }: ReadOptions,
): DataRow[] {
  const [header] = records;
  const names = columns ?? header?.fields ?? [];
  return records.slice(columns === undefined ? 1 : 0).map(({ fields, line }) => {
    const place = `${path} line ${line}`;
    if (fields.length !== names.length) {
      throw new DataError("eval", `expected ${names.length} fields in ${place}, got ${fields.length}`, {
        hint: `columns: ${names.join(", ")}`,
      });
    }
    return { value: Object.fromEntries(names.map((name, index) => [name, fields[index]])), place };
  });
}

async function parquetRows(path: string, bytes: Uint8Array): Promise<DataRow[]> {
  const [{ parquetReadObjects }, { compressors }] = await Promise.all([
    import("hyparquet"),
    import("hyparquet-compressors"),
  ]);
  const file = Uint8Array.from(bytes).buffer;
  try {
    const rows = await parquetReadObjects({ file, compressors });
    return rows.map((row, index) => ({ value: plainValue(row), place: `${path} row ${index + 1}` }));
  } catch (error) {
    throw new DataError("eval", `expected a Parquet file at ${path}, got ${messageOf(error)}`, {
      hint: "is it whole?",
      cause: error,
    });
  }
}

/** Parquet's 64-bit integers as numbers, all else as it is. */
function plainValue(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value)) return value.map(plainValue);
  if (typeof value !== "object" || value === null || value instanceof Date || ArrayBuffer.isView(value))
    return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plainValue(item)]));
}

function excerpt(text: string): string {
  return text.length > 40 ? `${JSON.stringify(text.slice(0, 40))}...` : JSON.stringify(text);
}
