/**
 * From sources to the list of files behind them, each with the way it is read: globs and folders are expanded, source trees
 * walked, all in sorted order, so that the list depends on what is on the disk and nothing else.
 */
import { existsSync, globSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { DataError, FileError, withFileErrors } from "../../base/index.ts";
import { globExpression, IgnoreRules, isReadable, isWalked } from "./ignore.ts";
import { withTestTasks } from "./naturalInstructions.ts";
import {
  type FileSource,
  type ResolvedSource,
  resolveSource,
  type Source,
  type TreeSource,
} from "./schema.ts";

/** A file to read, and how. */
export interface SourceFile {
  readonly file: string;
  readonly sizeBytes: number;
  readonly source: FileSource;
}

/** The files of `sources`, in the order of the sources and sorted within each. Throws ConfigError, DataError, FileError. */
export function listFiles(sources: readonly Source[]): SourceFile[] {
  const files = sources.flatMap((source) => {
    if (typeof source === "string") return listPath(source);
    const resolved = resolveSource(source);
    return pathsOf(resolved).flatMap((path) => listKind(path, resolved));
  });
  if (files.length > 0 || sources.length === 0) return files;
  const paths = sources.flatMap((source) => (typeof source === "string" ? source : source.paths));
  throw new DataError("data", `expected text files in ${paths.slice(0, 3).join(", ")}, got none`, {
    hint: "the folders hold no files of a kind that is read",
    fields: { paths },
  });
}

function pathsOf(source: ResolvedSource): readonly string[] {
  return typeof source.paths === "string" ? [source.paths] : source.paths;
}

/** A bare path: each file by its extension. */
function listPath(path: string): SourceFile[] {
  if (isFolder(path)) return listKind(path, resolveSource({ kind: "tree", paths: path }));
  return expand(path).flatMap((file) =>
    isFolder(file) ? listPath(file) : [sourceFile(file, sourceByExtension(file, "error"))],
  );
}

function listKind(path: string, source: ResolvedSource): SourceFile[] {
  if (source.kind === "tree") {
    if (!isFolder(path)) {
      throw new FileError(
        "data",
        `expected a folder at ${path}, got ${existsSync(path) ? "a file" : "nothing there"}`,
        {
          hint: "a source of kind 'tree' names folders",
        },
      );
    }
    return walk(path, source);
  }
  const ready = source.kind === "natural-instructions" ? withTestTasks(source) : source;
  const files = isFolder(path) ? expand(defaultPattern(source.kind), path) : expand(path);
  return files.map((file) => sourceFile(file, ready));
}

/** What is taken of a folder that is named as a source of files. */
function defaultPattern(kind: FileSource["kind"]): string {
  if (kind === "text") return "**/*.{txt,md,txt.gz,md.gz,txt.zst,md.zst}";
  if (kind === "natural-instructions") return "**/*.json{,.gz,.zst}";
  return "**/*.{jsonl,ndjson,jsonl.gz,ndjson.gz,jsonl.zst,ndjson.zst}";
}

/** The files of a glob (within `folder`, where given), or the one path that it is. Throws DataError, FileError. */
function expand(pattern: string, folder = ""): string[] {
  if (folder === "" && (existsSync(pattern) || !/[*?[{]/.test(pattern))) return [pattern];
  const found = globSync(pattern, folder === "" ? {} : { cwd: folder });
  const files = found.map((file) => join(folder, file)).sort(byCodeUnits);
  if (files.length > 0) return files;
  const where = folder === "" ? pattern : join(folder, pattern);
  throw new DataError("data", `expected files at ${where}, got none that match`, {
    hint: "check the path and the ending of the file names",
  });
}

function sourceFile(file: string, source: FileSource): SourceFile {
  const stats = withFileErrors("data", "a readable file", file, () => statSync(file));
  if (stats.isDirectory()) {
    throw new FileError("data", `expected a file at ${file}, got a folder`, {
      hint: "name its files, or use a tree",
    });
  }
  return { file, sizeBytes: stats.size, source };
}

function isFolder(path: string): boolean {
  const stats = withFileErrors("data", "readable files", path, () =>
    statSync(path, { throwIfNoEntry: false }),
  );
  return stats?.isDirectory() ?? false;
}

function sourceByExtension(file: string, invalidUtf8: FileSource["invalidUtf8"]): FileSource {
  const isJsonLines = /\.(jsonl|ndjson)(\.(gz|zst))?$/i.test(file);
  return isJsonLines
    ? { kind: "json-lines", paths: file, textKey: "text", invalidUtf8: "error" }
    : { kind: "text", paths: file, documents: "file", invalidUtf8 };
}

function byCodeUnits(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

interface WalkState {
  readonly source: TreeSource;
  readonly include: readonly RegExp[];
  readonly exclude: readonly RegExp[];
  readonly root: string;
  readonly found: SourceFile[];
}

function walk(root: string, source: TreeSource): SourceFile[] {
  const state: WalkState = {
    source,
    include: source.include?.map(globExpression) ?? [/(?:)/],
    exclude: source.exclude.map(globExpression),
    root,
    found: [],
  };
  walkFolder(state, "", []);
  return state.found;
}

/** `ignores`: the .gitignore rules in force, with the folder each stands in. */
function walkFolder(
  state: WalkState,
  folder: string,
  ignores: readonly { folder: string; rules: IgnoreRules }[],
): void {
  const path = join(state.root, folder);
  const entries = withFileErrors("data", "a readable folder", path, () =>
    readdirSync(path, { withFileTypes: true }),
  );
  const ignoreFile = join(path, ".gitignore");
  const inForce =
    state.source.gitignore && existsSync(ignoreFile)
      ? [...ignores, { folder, rules: new IgnoreRules(readFileSync(ignoreFile, "utf8")) }]
      : ignores;
  for (const entry of entries.sort((a, b) => byCodeUnits(a.name, b.name))) {
    const relative = folder === "" ? entry.name : `${folder}/${entry.name}`;
    const isDirectory = entry.isDirectory();
    // Symbolic links are left out: what they point to is elsewhere, or twice.
    if ((!isDirectory && !entry.isFile()) || isIgnored(relative, isDirectory, inForce)) continue;
    if (state.exclude.some((expression) => expression.test(relative))) continue;
    if (isDirectory) {
      if (isWalked(entry.name)) walkFolder(state, relative, inForce);
      continue;
    }
    if (!isReadable(entry.name) || !state.include.some((expression) => expression.test(relative))) continue;
    const found = sourceFile(
      join(state.root, relative),
      sourceByExtension(relative, state.source.invalidUtf8),
    );
    if (found.sizeBytes <= state.source.maxFileBytes || found.source.kind === "json-lines")
      state.found.push(found);
  }
}

function isIgnored(
  path: string,
  isFolder: boolean,
  ignores: readonly { folder: string; rules: IgnoreRules }[],
): boolean {
  for (const { folder, rules } of ignores.toReversed()) {
    const decision = rules.decide(folder === "" ? path : path.slice(folder.length + 1), isFolder);
    if (decision !== undefined) return decision;
  }
  return false;
}
