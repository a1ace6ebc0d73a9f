/**
 * The cache that Python's `huggingface_hub` keeps, so that what one program pulled the other finds:
 *
 *     models--org--name/…, datasets--org--name/…         a repository; below it:
 *     models--org--name/blobs/<sha256 or git hash>       the bytes, once
 *     models--org--name/snapshots/<commit>/<file>        links to blobs
 *     models--org--name/refs/<branch or tag>             the commit it stood for
 *     models--org--name/licenses/<commit>.json           ours: the licence as the hub told it at the time
 */
import {
  copyFileSync,
  existsSync,
  linkSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from "node:fs";
import { dirname, join, relative } from "node:path";
import {
  CheckpointError,
  makeFolder,
  readJson,
  systemErrorCode,
  withFileErrors,
  writeText,
} from "../../base/index.ts";
import type { HubFile, ModelLicense } from "./client.ts";
import { checkFilePath, checkRevision, isCommit, isModelName, kindNames } from "./names.ts";
import type { RepositoryKind } from "./names.ts";

export const defaultRevision = "main";

/** `models--org--name` */
export function cachedName(name: string, kind: RepositoryKind): string {
  return `${kindNames[kind].plural}--${name.replace("/", "--")}`;
}

/** Where one model or data set lies in the cache. */
export class CachedRepository {
  readonly folder: string;

  constructor(cacheFolder: string, name: string, kind: RepositoryKind = "model") {
    this.folder = join(cacheFolder, cachedName(name, kind));
  }

  blob(file: HubFile): string {
    return join(this.folder, "blobs", file.object);
  }

  snapshot(commit: string): string {
    return join(this.folder, "snapshots", commit);
  }

  file(commit: string, path: string): string {
    return join(this.snapshot(commit), checkFilePath(path));
  }

  /** Whether the bytes of `file` are there in whole. */
  hasBlob(file: HubFile): boolean {
    return statSync(this.blob(file), { throwIfNoEntry: false })?.size === file.sizeBytes;
  }

  /** Forgets the bytes of `file`. */
  dropBlob(file: HubFile): void {
    withFileErrors("hub", "a writable file", this.blob(file), () => rmSync(this.blob(file), { force: true }));
  }

  /** Lets `file` appear in the snapshot of `commit`. */
  link(commit: string, file: HubFile): void {
    const path = this.file(commit, file.path);
    const blob = this.blob(file);
    makeFolder("hub", dirname(path));
    withFileErrors("hub", "a writable file", path, () => {
      const temporary = `${path}.${process.pid}.part`;
      rmSync(temporary, { force: true });
      try {
        symlinkSync(relative(dirname(path), blob), temporary);
      } catch (error) {
        // Windows without the right to make links, and file systems that know none.
        if (!["EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP"].includes(systemErrorCode(error) ?? "")) throw error;
        linkOrCopy(blob, temporary);
      }
      renameSync(temporary, path);
    });
  }

  /** The commit that `revision` stood for when it was last pulled. */
  commitOf(revision: string): string | undefined {
    if (isCommit(revision)) return revision;
    const path = join(this.folder, "refs", ...checkRevision(revision).split("/"));
    if (statSync(path, { throwIfNoEntry: false })?.isFile() !== true) return undefined;
    const commit = readFileSync(path, "utf8").trim();
    return isCommit(commit) ? commit : undefined;
  }

  /** Lets `revision` stand for `commit`. */
  writeRef(revision: string, commit: string): void {
    if (isCommit(revision) || this.commitOf(revision) === commit) return;
    writeText("hub", join(this.folder, "refs", ...checkRevision(revision).split("/")), commit);
  }

  writeLicense(commit: string, license: ModelLicense & { model: string; gate: string }): void {
    const path = join(this.folder, "licenses", `${commit}.json`);
    writeText("hub", path, `${JSON.stringify({ commit, ...license }, undefined, 2)}\n`);
  }

  readLicense(commit: string): ModelLicense | undefined {
    const path = join(this.folder, "licenses", `${commit}.json`);
    if (!existsSync(path)) return undefined;
    const json = readJson("hub", path);
    const field = (key: string): string | undefined => {
      const value: unknown = typeof json === "object" && json !== null ? Reflect.get(json, key) : undefined;
      return typeof value === "string" ? value : undefined;
    };
    return { id: field("id"), name: field("name"), link: field("link") };
  }
}

function linkOrCopy(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch {
    copyFileSync(from, to);
  }
}

export interface CachedModel {
  name: string;
  revision: string;
  commit: string;
  /** The snapshot: a folder as the repository has it. */
  folder: string;
  license: ModelLicense | undefined;
}

/**
 * A pulled model (or data set), by `org/name` or `org/name@revision`, whoever pulled it; undefined where the cache has none.
 * Throws ConfigError for a revision that cannot be one.
 */
export function findCachedModel(
  text: string,
  cacheFolder: string,
  kind: RepositoryKind = "model",
): CachedModel | undefined {
  const at = text.indexOf("@");
  const name = at < 0 ? text : text.slice(0, at);
  const revision = at < 0 ? defaultRevision : checkRevision(text.slice(at + 1));
  if (!isModelName(name)) return undefined;
  const repository = new CachedRepository(cacheFolder, name, kind);
  const commit = repository.commitOf(revision);
  if (commit === undefined || !existsSync(repository.snapshot(commit))) return undefined;
  return {
    name,
    revision,
    commit,
    folder: repository.snapshot(commit),
    license: repository.readLicense(commit),
  };
}

/** Throws CheckpointError: the model (or data set) is needed from the cache and is not in it. */
export function requireCachedModel(
  text: string,
  cacheFolder: string,
  kind: RepositoryKind = "model",
): CachedModel {
  const found = findCachedModel(text, cacheFolder, kind);
  if (found !== undefined) return found;
  throw new CheckpointError("hub", `expected ${text} in ${cacheFolder}, got nothing of it`, {
    hint: "fetch it while HF_HUB_OFFLINE is not set",
  });
}
