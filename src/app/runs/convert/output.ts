/**
 * A file or folder that appears whole or not at all: written beside its place, checked for room first, and put there in one rename. What
 * stood there before, with --force, goes only then.
 */
import { existsSync, readdirSync, renameSync, rmSync, statfsSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
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

/** Beside a target: the result until it is whole, a folder for whatever else is needed, and what is being replaced. */
function placesOf(path: string) {
  const target = resolve(path);
  return {
    target,
    temporary: `${target}.part`,
    scratch: `${target}.part.scratch`,
    old: `${target}.old.part`,
  };
}

/**
 * Runs `write` on a path beside `path` and puts its result there; `scratch` is an empty folder for its use. Throws what `write` throws,
 * FileError; `path` then holds what it held before.
 */
export async function replaceAtomically(
  path: string,
  write: (places: { temporary: string; scratch: string }) => Promise<void>,
): Promise<void> {
  const { target, temporary, scratch, old } = placesOf(path);
  clearLeftovers(path);
  try {
    makeFolder(component, scratch);
    await write({ temporary, scratch });
    withFileErrors(component, "a writable place", path, () => {
      // A folder cannot be renamed onto one with files in it.
      if (existsSync(target)) renameSync(target, old);
      renameSync(temporary, target);
    });
  } finally {
    clearLeftovers(path);
  }
}

/** Removes what an attempt left beside `path` that ended in whatever way, and puts back what it was about to replace. Throws FileError. */
export function clearLeftovers(path: string): void {
  const { target, old } = placesOf(path);
  withFileErrors(component, "a path that can be removed", path, () => {
    if (!existsSync(target) && existsSync(old)) renameSync(old, target);
    const parent = dirname(target);
    if (!existsSync(parent)) return;
    for (const name of readdirSync(parent)) {
      const isOurs =
        name.startsWith(`${basename(target)}.`) && leftover.test(name.slice(basename(target).length));
      if (isOurs) rmSync(join(parent, name), { recursive: true, force: true });
    }
  });
}

/** The places beside a target, and the file that an archive is written to, which has a process number in its name. */
const leftover = /^(\.part(\.scratch|\.\d+\.part)?|\.old\.part)$/;
