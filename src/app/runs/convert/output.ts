/**
 * A file or folder that appears whole or not at all: written beside its place, checked for room first, and put there in one rename. What
 * stood there before, with --force, goes only then.
 */
import { existsSync, readdirSync, renameSync, rmSync, statfsSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { FileError, formatBytes, makeFolder, withFileErrors } from "../../../base/index.ts";

const component = "convert";

export interface OutputOptions {
  path: string;
  /** What stands at `path` may be replaced. */
  isForced: boolean;
  /** Bytes of weights to come. */
  numBytes: number;
}

/** Throws FileError when something is there, or the disk has no room: before any work is done. */
export function checkOutput({ path, isForced, numBytes }: OutputOptions): void {
  if (existsSync(path) && !isForced && !isEmptyFolder(path)) {
    throw new FileError(component, `expected nothing at ${path}, got ${describe(path)}`, {
      hint: "choose another place, or replace it with --force",
      fields: { path },
    });
  }
  const parent = dirname(resolve(path));
  makeFolder(component, parent);
  const { bavail, bsize } = withFileErrors(component, "a writable folder", parent, () => statfsSync(parent));
  const freeBytes = bavail * bsize;
  if (numBytes > freeBytes) {
    throw new FileError(
      component,
      `expected ${formatBytes(numBytes)} of room at ${parent}, got ${formatBytes(freeBytes)}`,
      { hint: "free some space, or choose another place", fields: { path, numBytes, freeBytes } },
    );
  }
}

function isEmptyFolder(path: string): boolean {
  return statSync(path).isDirectory() && readdirSync(path).length === 0;
}

function describe(path: string): string {
  return statSync(path).isDirectory() ? "a folder with files" : "a file";
}

/**
 * Runs `write` on a path beside `path` and puts its result there. Leftovers of an earlier attempt that was killed are removed first.
 * Throws what `write` throws, FileError; `path` then holds what it held before.
 */
export async function replaceAtomically(
  path: string,
  write: (temporary: string) => Promise<void>,
): Promise<void> {
  const target = resolve(path);
  const temporary = `${target}.part`;
  const old = `${target}.old`;
  remove(temporary);
  try {
    await write(temporary);
    withFileErrors(component, "a writable place", path, () => {
      remove(old);
      // A folder cannot be renamed onto one with files in it.
      if (existsSync(target)) renameSync(target, old);
      renameSync(temporary, target);
    });
    remove(old);
  } catch (error) {
    remove(temporary);
    if (!existsSync(target) && existsSync(old)) renameSync(old, target);
    throw error;
  }
}

function remove(path: string): void {
  withFileErrors(component, "a path that can be removed", path, () =>
    rmSync(path, { recursive: true, force: true }),
  );
}
