/**
 * Where tasks find their data: a folder with a subfolder a data set, in any of the forms the data set is published in. What was read
 * stays in memory for the tasks that share it. Missing data is an error that says where it is to be had and under which licence.
 */
import { existsSync, globSync } from "node:fs";
import { basename, join, sep } from "node:path";
import type { z } from "zod";
import { DataError } from "../../base/index.ts";
import { readRows } from "./rows.ts";
import type { DataRow } from "./rows.ts";

/** A data set: how its files are called, what a row holds, and where it comes from. */
export interface DataSource<Row> {
  /** Folder below the data folder. */
  readonly folder: string;
  /** For each split the files it may be in, first found first taken; `*` stands for any part of one name. */
  readonly splits: Readonly<Record<string, readonly string[]>>;
  /** Checks a raw row and makes the task's row of it, from any published form. */
  readonly row: z.ZodType<Row>;
  /** Names of the columns of a CSV file without a header. */
  readonly columns?: readonly string[];
  /** Makes rows of a JSON document that nests them. */
  readonly expand?: (document: unknown) => readonly unknown[];
  /** Fields that every row of a file shares, from the file's name. */
  readonly fieldsOfFile?: (fileName: string) => Readonly<Record<string, unknown>>;
  /** Files with one value a line that give rows a further field. */
  readonly labels?: Readonly<Record<string, { field: string; files: readonly string[] }>>;
  /** Files with one text a line whose lines belong together: the other file of a file, and the fields of both. */
  readonly aligned?: { from: string; to: string; file: (path: string) => string };
  /** Where to get it. */
  readonly homepage: string;
  readonly licence: string;
  /** Name on the Hugging Face hub, its configuration there, and the branch, tag or commit to take; default: the newest. */
  readonly hub?: { readonly repository: string; readonly configuration?: string; readonly revision?: string };
}

/** Brings the files of a split that is missing here and gives their paths; none: it knows no place that has them. */
export type FetchData = (source: DataSource<unknown>, split: string) => Promise<readonly string[]>;

export interface DataStoreOptions {
  /** The data folder, or several in order. */
  folders: readonly string[];
  fetch?: FetchData | undefined;
}

export class DataStore {
  readonly #options: DataStoreOptions;
  /** By the source itself: languages of one data set share a folder and a split's name. */
  readonly #rows = new Map<DataSource<unknown>, Map<string, Promise<readonly unknown[]>>>();
  readonly #files = new Map<DataSource<unknown>, Map<string, Promise<readonly string[]>>>();

  constructor(options: DataStoreOptions) {
    this.#options = options;
  }

  /** Whether the split's files are here, or came. */
  async has(source: DataSource<unknown>, split: string): Promise<boolean> {
    return (await this.#filesOf(source, split)).length > 0;
  }

  /** The rows of a split, or those of them that have a value in a field. Throws DataError: missing files, malformed rows. */
  async rows<Row>(
    source: DataSource<Row>,
    split: string,
    only?: { field: string; value: string },
  ): Promise<readonly Row[]> {
    const rows = await remembered(this.#rows, source, split, () => this.#read(source, split));
    const kept = only === undefined ? rows : rows.filter((row) => fieldOf(row, only.field) === only.value);
    return kept.map((row) => source.row.parse(row));
  }

  async #read(source: DataSource<unknown>, split: string): Promise<readonly unknown[]> {
    const files = await this.#filesOf(source, split);
    if (files.length === 0) throw this.#missing(source, split);
    const rows: DataRow[] = [];
    for (const file of files) {
      const shared = source.fieldsOfFile?.(basename(file).replace(/\..*$/, ""));
      const own =
        source.aligned === undefined ? await readRows(file, source) : await alignedRows(file, source.aligned);
      for (const row of own)
        rows.push(shared === undefined ? row : { ...row, value: merged(row.value, shared) });
    }
    const labelled = await this.#labelled(source, split, rows);
    for (const { value, place } of labelled) checkRow(source, value, place);
    return labelled.map(({ value }) => value);
  }

  async #labelled(
    source: DataSource<unknown>,
    split: string,
    rows: readonly DataRow[],
  ): Promise<readonly DataRow[]> {
    const labels = source.labels?.[split];
    if (labels === undefined) return rows;
    const [file] = this.#options.folders.flatMap((folder) =>
      findFiles(join(folder, source.folder), labels.files),
    );
    if (file === undefined) return rows;
    const values = await readRows(file);
    if (values.length !== rows.length) {
      throw new DataError(
        "eval",
        `expected a label for each of ${rows.length} rows in ${file}, got ${values.length}`,
      );
    }
    return rows.map((row, index) => ({
      ...row,
      value: merged(row.value, { [labels.field]: values[index].value }),
    }));
  }

  #filesOf(source: DataSource<unknown>, split: string): Promise<readonly string[]> {
    return remembered(this.#files, source, split, async () => {
      const here = this.#find(source, split);
      return here.length > 0 ? here : ((await this.#options.fetch?.(source, split)) ?? []);
    });
  }

  #find(source: DataSource<unknown>, split: string): string[] {
    for (const folder of this.#options.folders) {
      const files = findFiles(join(folder, source.folder), source.splits[split] ?? []);
      if (files.length > 0) return files;
    }
    return [];
  }

  #missing(source: DataSource<unknown>, split: string): DataError {
    const { folders, fetch } = this.#options;
    const where = folders.map((folder) => join(folder, source.folder)).join(" or ");
    const hub =
      source.hub === undefined
        ? ""
        : `, on the hub as ${source.hub.repository}${fetch === undefined ? ", which --fetch brings" : ""}`;
    return new DataError(
      "eval",
      `expected the ${split} split of ${source.folder} at ${where === "" ? "the data folder" : where}, got ${folders.some((folder) => existsSync(join(folder, source.folder))) ? "none of its files" : "nothing there"}`,
      {
        hint: `get it from ${source.homepage} (licence: ${source.licence})${hub}; it is looked for as ${(source.splits[split] ?? []).join(", ")}; --data names another folder`,
        fields: { folder: source.folder, split },
      },
    );
  }
}

/** The value of a source's split, made once. */
function remembered<Value>(
  values: Map<DataSource<unknown>, Map<string, Promise<Value>>>,
  source: DataSource<unknown>,
  split: string,
  make: () => Promise<Value>,
): Promise<Value> {
  const ofSource = values.get(source) ?? new Map<string, Promise<Value>>();
  values.set(source, ofSource);
  const value = ofSource.get(split) ?? make();
  ofSource.set(split, value);
  return value;
}

async function alignedRows(
  path: string,
  { from, to, file }: { from: string; to: string; file: (path: string) => string },
): Promise<DataRow[]> {
  const [left, right] = [await readRows(path), await readRows(file(path))];
  if (left.length !== right.length) {
    throw new DataError(
      "eval",
      `expected ${left.length} lines in ${file(path)} as in ${path}, got ${right.length}`,
    );
  }
  return left.map(({ value, place }, index) => ({
    value: { [from]: value, [to]: right[index].value },
    place,
  }));
}

/** The files of the first pattern that any match, in order; `*` stands for any part of one name. */
export function findFiles(folder: string, patterns: readonly string[]): string[] {
  for (const pattern of patterns) {
    const names = globSync(pattern.split("/").join(sep), { cwd: folder }).toSorted();
    if (names.length > 0) return names.map((name) => join(folder, name));
  }
  return [];
}

function fieldOf(row: unknown, field: string): unknown {
  return typeof row === "object" && row !== null ? Reflect.get(row, field) : undefined;
}

function merged(value: unknown, fields: Readonly<Record<string, unknown>>): unknown {
  return typeof value === "object" && value !== null ? { ...value, ...fields } : value;
}

function checkRow(source: DataSource<unknown>, value: unknown, place: string): void {
  const result = source.row.safeParse(value);
  if (result.success) return;
  const [issue] = deepest(result.error.issues);
  const field = issue.path.map(String).join(".");
  const expected = issue.message.replace(/^Invalid (input|option): expected /, "");
  const shown = JSON.stringify(value) ?? "nothing";
  throw new DataError(
    "eval",
    `expected ${field === "" ? "" : `${field}: `}${expected} in ${place}, got ${shown.length > 120 ? `${shown.slice(0, 117)}...` : shown}`,
    { fields: { place, field } },
  );
}

/** The issues of the published form that the row comes nearest to. */
function deepest(issues: readonly z.core.$ZodIssue[]): readonly z.core.$ZodIssue[] {
  const [first] = issues;
  if (first?.code !== "invalid_union") return issues;
  const forms = first.errors.map(deepest).filter((form) => form.length > 0);
  return forms.toSorted((a, b) => a.length - b.length)[0] ?? issues;
}

/** File names of a split in the forms data sets come in: plain JSON lines, the hub's Parquet files, CSV. */
export function usualFiles(split: string, configuration?: string): string[] {
  const names = [
    `${split}.jsonl`,
    `${split}.jsonl.gz`,
    `${split}.json`,
    `${split}.csv`,
    `${split}.tsv`,
    `${split}.parquet`,
  ];
  const shards = [`${split}-*.parquet`, `data/${split}-*.parquet`];
  const nested =
    configuration === undefined
      ? []
      : [`${configuration}/${split}-*.parquet`, `${configuration}/${split}.jsonl`];
  return [...names, ...shards, ...nested];
}
