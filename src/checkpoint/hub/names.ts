/**
 * Names that come from outside and end in paths: models, revisions, commits, files. Each is checked before it is joined to a
 * folder, so that no hub, mirror or user can lead a file out of the cache.
 */
import { ConfigError, HubError } from "../../base/index.ts";

/** What a repository of the hub holds. */
export type RepositoryKind = "model" | "dataset";

/** How the hub and its cache call the kinds: in `/api/<plural>/…`, in `/<prefix>org/name/resolve/…`, and for people. */
export const kindNames: Readonly<
  Record<RepositoryKind, { readonly plural: string; readonly prefix: string; readonly word: string }>
> = {
  model: { plural: "models", prefix: "", word: "model" },
  dataset: { plural: "datasets", prefix: "datasets/", word: "data set" },
};

const part = "(?!-|\\.)[A-Za-z0-9_.-]{1,96}(?<!-|\\.)";
const modelPattern = new RegExp(`^(?:${part}/)?${part}$`);
const commitPattern = /^[0-9a-f]{40}$/;
const objectPattern = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;

/** Whether `text` has the form of a hub model's name, `org/name` or `name`. */
export function isModelName(text: string): boolean {
  return modelPattern.test(text) && !text.includes("--") && !text.includes("..") && !text.endsWith(".git");
}

/** Throws ConfigError unless `text` is the name of a model or data set; both follow one rule. */
export function checkRepositoryName(text: string, kind: RepositoryKind): string {
  if (isModelName(text)) return text;
  throw new ConfigError("hub", `expected a ${kindNames[kind].word}'s name, got '${text}'`, {
    hint: "names look like nvidia/Nemotron-H-8B-Base-8K: letters, digits, '-', '_' and '.'",
  });
}

/** Throws ConfigError unless `text` can be a branch, tag or commit. */
export function checkRevision(text: string): string {
  if (isSafePath(text) && !text.startsWith("-") && !/\s/.test(text)) return text;
  throw new ConfigError("hub", `--revision: expected a branch, a tag or a commit, got '${text}'`);
}

export const isCommit = (text: string): boolean => commitPattern.test(text);

/** Throws HubError unless the hub's `text` is a whole commit hash. */
export function checkCommit(text: string): string {
  if (isCommit(text)) return text;
  throw new HubError("hub", `expected a commit of 40 hexadecimal digits, got ${JSON.stringify(text)}`);
}

/** Throws HubError unless the hub's `text` is a sha256 or a git hash. */
export function checkObjectName(text: string, file: string): string {
  if (objectPattern.test(text)) return text;
  throw new HubError("hub", `${file}: expected a sha256 or git hash, got ${JSON.stringify(text)}`);
}

/** Throws HubError where a file's name would leave its folder. */
export function checkFilePath(path: string): string {
  if (isSafePath(path)) return path;
  throw new HubError("hub", `expected a file name inside its repository, got ${JSON.stringify(path)}`, {
    hint: "this repository is not safe to download",
  });
}

function isSafePath(path: string): boolean {
  // A backslash and a colon are separators on Windows, where the same cache may lie.
  if (path === "" || /[\\:\p{Cc}]/u.test(path)) return false;
  return path.split("/").every((name) => name !== "" && name !== "." && name !== "..");
}
