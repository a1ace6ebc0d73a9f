/**
 * A folder of build results shared by processes. Files appear by renaming and carry a checksum beside them, so that readers
 * see a whole file or none, and a damaged one is noticed and built anew. The lock only saves double work: without it
 * two processes build the same bytes and the later rename wins.
 */
import { createHash, randomBytes } from "node:crypto";
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeSync,
} from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { systemErrorCode, writeText } from "../../base/index.ts";

const lockPollMs = 50;
const lockPatienceMs = 300_000;
const unusedDays = 60;

export function sha256(...parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash("sha256");
  for (const part of parts) {
    // Lengths keep ("ab", "c") and ("a", "bc") apart.
    hash.update(`${part.length}:`);
    hash.update(part);
  }
  return hash.digest("hex");
}

/** Whether `path` is there and has the checksum that was noted for it. */
export function isIntact(path: string): boolean {
  try {
    return readFileSync(`${path}.sha256`, "utf8") === sha256(readFileSync(path));
  } catch {
    return false;
  }
}

/** A name beside `path` that no other process uses. */
export function temporaryName(path: string): string {
  return `${path}.${process.pid}-${randomBytes(4).toString("hex")}.part`;
}

/** Moves a finished file to its place, its checksum first. */
export function publish(temporary: string, path: string): void {
  writeText("cpu", `${path}.sha256`, sha256(readFileSync(temporary)));
  renameSync(temporary, path);
}

/** Notes that a file is in use, for `removeUnused`. A read-only cache is fine. */
export function touch(path: string): void {
  try {
    const now = new Date();
    utimesSync(path, now, now);
  } catch {
    // Not ours to change: it only ages.
  }
}

/** Removes files of `folder` that nobody used for two months, half-written ones of dead processes included. */
export function removeUnused(folder: string): void {
  const limitMs = Date.now() - unusedDays * 86_400_000;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    try {
      if (entry.isFile() && statSync(path).mtimeMs < limitMs && !entry.name.endsWith(".sha256")) {
        rmSync(path, { force: true });
        rmSync(`${path}.sha256`, { force: true });
      }
    } catch {
      // Another process was faster.
    }
  }
}

/** Runs `body` while holding the lock file `path`, waiting for another process that holds it. */
export async function withLock<Result>(path: string, body: () => Promise<Result>): Promise<Result> {
  const isOurs = await acquire(path);
  try {
    return await body();
  } finally {
    if (isOurs) rmSync(path, { force: true });
  }
}

/** False where the lock could not be had in time: the caller goes on without it. */
async function acquire(path: string): Promise<boolean> {
  const owner = `${hostname()} ${process.pid}`;
  for (const startMs = Date.now(); Date.now() - startMs < lockPatienceMs;) {
    try {
      const descriptor = openSync(path, "wx");
      writeSync(descriptor, owner);
      closeSync(descriptor);
      return true;
    } catch (error) {
      if (systemErrorCode(error) !== "EEXIST") return false;
    }
    if (isAbandoned(path)) rmSync(path, { force: true });
    else await sleep(lockPollMs);
  }
  return false;
}

function isAbandoned(path: string): boolean {
  try {
    const age = Date.now() - statSync(path).mtimeMs;
    if (age > lockPatienceMs) return true;
    const [host, pid] = readFileSync(path, "utf8").split(" ");
    if (host !== hostname() || pid === undefined) return false;
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return systemErrorCode(error) === "ESRCH";
  }
}
