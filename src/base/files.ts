/**
 * File helpers: sentences for the disk's refusals, and writing beside and renaming so that nothing half-written is left.
 */
import { constants } from "node:buffer";
import { createHash } from "node:crypto";
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { FileError, messageOf, systemErrorCode } from "./errors.ts";
import { formatBytes } from "./units.ts";

const reasons: Readonly<Record<string, { got: string; hint: string }>> = {
  ENOENT: { got: "nothing there", hint: "check the path" },
  EACCES: { got: "permission denied", hint: "check the file's permissions" },
  EPERM: { got: "permission denied", hint: "check the file's permissions" },
  EROFS: { got: "a read-only file system", hint: "choose another folder" },
  ENOSPC: { got: "a full disk", hint: "free some space and run the same command again" },
  EDQUOT: { got: "a full quota", hint: "free some space and run the same command again" },
  EFBIG: { got: "a limit on the size of files", hint: "raise it with 'ulimit -f', or write smaller shards" },
  EISDIR: { got: "a folder", hint: "name a file" },
  ENOTDIR: { got: "a file where a folder should be", hint: "check the path" },
  EMFILE: { got: "too many open files", hint: "raise the limit with 'ulimit -n'" },
};

/** Turns a Node system error about `path` into one sentence; gives anything else back as it is. */
export function fileError(component: string, wanted: string, path: string, error: unknown): unknown {
  const code = systemErrorCode(error);
  if (code === undefined) return error;
  const { got, hint } = reasons[code] ?? { got: messageOf(error), hint: "check the path" };
  const place = finalPath(path);
  return new FileError(component, `expected ${wanted} at ${place}, got ${got}`, {
    hint,
    cause: error,
    fields: { path: place, code },
  });
}

/** What the user knows a file as that is written beside its place first: `a/b.bin.123.part` is `a/b.bin`. */
function finalPath(path: string): string {
  return path.replaceAll(/(?:\.\d+)?\.part(?:\.scratch)?(?=\/|$)/g, "");
}

/** Runs `body`, turning system errors about `path` into sentences. */
export function withFileErrors<Result>(
  component: string,
  wanted: string,
  path: string,
  body: () => Result,
): Result {
  try {
    return body();
  } catch (error) {
    throw fileError(component, wanted, path, error);
  }
}

/** What one string can hold, in bytes of UTF-8 that has no longer characters than ASCII's. */
const mostTextBytes = constants.MAX_STRING_LENGTH;

/** The whole of a file that is read into memory as it is; throws FileError, for one too large to be of its kind before it is read. */
export function readSmallFile(component: string, path: string, mostBytes = mostTextBytes): Buffer {
  return withFileErrors(component, "a readable file", path, () => {
    const { size } = statSync(path);
    if (size > mostBytes) {
      throw new FileError(
        component,
        `expected a file of at most ${formatBytes(mostBytes)} at ${path}, got ${formatBytes(size)}`,
        { hint: "check that it is the right file, or cut it into several", fields: { path } },
      );
    }
    return readFileSync(path);
  });
}

/** The whole text of a UTF-8 file. Throws FileError. */
export function readText(component: string, path: string): string {
  return readSmallFile(component, path).toString("utf8");
}

/** Parses a JSON file. Throws FileError, also when it is not JSON. */
export function readJson(component: string, path: string): unknown {
  const text = readText(component, path);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new FileError(component, `expected JSON in ${path}, got ${messageOf(error)}`, {
      cause: error,
      fields: { path },
    });
  }
}

/** Makes a folder and its parents. */
export function makeFolder(component: string, path: string): void {
  withFileErrors(component, "a writable folder", path, () => {
    try {
      mkdirSync(path, { recursive: true });
    } catch (error) {
      if (systemErrorCode(error) !== "ENOENT") throw error;
      // Node says "nothing there" of a read-only file system: the first folder that is missing, made alone, says why.
      let missing = path;
      while (dirname(missing) !== missing && !existsSync(dirname(missing))) missing = dirname(missing);
      mkdirSync(missing);
      mkdirSync(path, { recursive: true });
    }
  });
}

/**
 * Writes a file through `body`, beside its final place, flushed and renamed: afterwards `path` holds all of it or what it
 * held before. Throws FileError.
 */
export function writeFileAtomically(
  component: string,
  path: string,
  body: (descriptor: number) => void,
): void {
  const temporary = `${path}.${process.pid}.part`;
  makeFolder(component, dirname(path));
  withFileErrors(component, "a writable file", path, () => {
    const descriptor = openSync(temporary, "w");
    let isOpen = true;
    try {
      body(descriptor);
      fsyncSync(descriptor);
      closeSync(descriptor);
      isOpen = false;
      renameSync(temporary, path);
    } catch (error) {
      if (isOpen) closeSync(descriptor);
      rmSync(temporary, { force: true });
      throw error;
    }
  });
}

/** Writes a whole text file atomically. */
export function writeText(component: string, path: string, text: string): void {
  writeFileAtomically(component, path, (descriptor) => writeAll(descriptor, Buffer.from(text, "utf8")));
}

/** Writes all of `bytes`, however many calls that takes. */
export function writeAll(descriptor: number, bytes: Uint8Array): void {
  const largestWrite = 1 << 30;
  for (let offset = 0; offset < bytes.byteLength;) {
    offset += writeSync(descriptor, bytes, offset, Math.min(largestWrite, bytes.byteLength - offset));
  }
}

/** The sha256 of a file as hexadecimal text, read in pieces. */
export function sha256File(component: string, path: string): string {
  return withFileErrors(component, "a readable file", path, () => {
    const hash = createHash("sha256");
    const descriptor = openSync(path, "r");
    try {
      const piece = new Uint8Array(1 << 22);
      for (let length = readSync(descriptor, piece); length > 0; length = readSync(descriptor, piece))
        hash.update(piece.subarray(0, length));
    } finally {
      closeSync(descriptor);
    }
    return hash.digest("hex");
  });
}

/** The folder for compiled kernels and downloads: NAUTILUS_CACHE, else XDG_CACHE_HOME/nautilus, else ~/.cache/nautilus. */
export function cacheFolder(...parts: string[]): string {
  const base =
    process.env["NAUTILUS_CACHE"] ??
    join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "nautilus");
  return join(base, ...parts);
}

/** A range of a file that is open in this process, and stays so as long as whoever gave it says. */
export interface FileRange {
  readonly descriptor: number;
  readonly position: number;
  readonly byteLength: number;
  /** To be called with the bytes read since the last call, by whoever reads them. */
  readonly onRead?: ((byteLength: number) => void) | undefined;
}
