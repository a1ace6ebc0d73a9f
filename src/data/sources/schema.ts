/**
 * How a recipe names its text: strict schemas of the kinds of sources. A bare string is a file, a glob or a folder whose
 * files are taken by their extension: `.jsonl`, `.ndjson` (also `.gz`, `.zst`) as JSON lines, all others as one document each.
 */
import { z } from "zod";
import { ConfigError, nearest, parseConfig } from "../../base/index.ts";

const paths = z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]);
/** What happens to bytes that are not UTF-8: an error, U+FFFD in their place, or the document (the file of a tree) left out. */
const invalidUtf8 = z.enum(["error", "replace", "skip"]);

const jsonLinesSchema = z.strictObject({
  kind: z.literal("json-lines"),
  /** Files, globs or folders. */
  paths,
  /** The key of the text. */
  textKey: z.string().min(1).default("text"),
  invalidUtf8: invalidUtf8.default("error"),
});

const textSchema = z.strictObject({
  kind: z.literal("text"),
  paths,
  /** Each file one document (cut into pieces while it is read, so that it may be of any size), or each line. */
  documents: z.enum(["file", "line"]).default("file"),
  invalidUtf8: invalidUtf8.default("error"),
});

const treeSchema = z.strictObject({
  kind: z.literal("tree"),
  /** Folders, walked in sorted order; each text file is a document. */
  paths,
  /** Globs relative to the folder; all files where absent. */
  include: z.array(z.string()).optional(),
  exclude: z.array(z.string()).default([]),
  /** Leave out what the folder's .gitignore files name. */
  gitignore: z.boolean().default(true),
  /** Larger files are left out: they are rarely written by people. */
  maxFileBytes: z
    .number()
    .int()
    .positive()
    .default(1 << 20),
  invalidUtf8: invalidUtf8.default("skip"),
});

/** FLAN v2 as JSON lines of `inputs` and `targets`. */
const flanSchema = z.strictObject({
  kind: z.literal("flan"),
  paths,
  /** Between prompt and answer. */
  separator: z.string().default("\n"),
  invalidUtf8: invalidUtf8.default("error"),
});

/** P3 as JSON lines of `inputs_pretokenized` and `targets_pretokenized`. */
const p3Schema = z.strictObject({
  kind: z.literal("p3"),
  paths,
  separator: z.string().default("\n"),
  invalidUtf8: invalidUtf8.default("error"),
});

/** Natural Instructions v2: a JSON file per task. */
const naturalInstructionsSchema = z.strictObject({
  kind: z.literal("natural-instructions"),
  paths,
  /** Positive examples shown in each prompt. */
  numExamples: z.number().int().nonnegative().default(2),
  /** Instances taken of each task; all where absent. */
  maxInstances: z.number().int().positive().optional(),
  /** Names of the test tasks, or a file with one name per line (splits/default/test_tasks.txt). */
  testTasks: z.union([z.string(), z.array(z.string())]).optional(),
  /** The first 100 instances of a test task are the official test set: left out, or the only ones taken. */
  heldOut: z.enum(["exclude", "only"]).default("exclude"),
  invalidUtf8: invalidUtf8.default("error"),
});

const kinds = z.discriminatedUnion("kind", [
  jsonLinesSchema,
  textSchema,
  treeSchema,
  flanSchema,
  p3Schema,
  naturalInstructionsSchema,
]);

export const sourceSchema = z.union([z.string().min(1), kinds]);

/** A source as a recipe writes it. */
export type Source = z.input<typeof sourceSchema>;
/** A source with its defaults filled in. */
export type ResolvedSource = z.output<typeof kinds>;
export type TreeSource = z.output<typeof treeSchema>;
/** The kinds that say how one file is read; a tree is expanded into these. */
export type FileSource = Exclude<ResolvedSource, TreeSource>;
export type FileSourceOf<Kind extends FileSource["kind"]> = Extract<FileSource, { kind: Kind }>;

/** Fills in the defaults of a source that is an object. Throws ConfigError. */
export function resolveSource(source: Exclude<Source, string>): ResolvedSource {
  // By the schema of its kind, so that a misspelt key is answered with the keys of that kind.
  const schema = kinds.options.find((option) => option.shape.kind.value === source.kind);
  if (schema !== undefined) return parseConfig("data", schema, source);
  const names = kinds.options.map((option) => option.shape.kind.value);
  const near = nearest(source.kind, names);
  throw new ConfigError("data", `kind: expected ${names.join(", ")}, got '${source.kind}'`, {
    hint: near === undefined ? "see the sources in the documentation" : `did you mean '${near}'?`,
  });
}
