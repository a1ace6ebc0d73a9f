/**
 * One pull per model at a time, across processes and machines that share the cache: a file that its holder touches every few seconds.
 * A holder that died is taken over, at once when it ran here, else when its file has grown old.
 *
 * Two takers of a dead holder's lock may, in a window of microseconds, both win. That costs transfer and no harm: both write the same
 * bytes to the same places, and nothing is put in place before its checksum holds.
 */
import { closeSync, openSync, readFileSync, rmSync, statSync, utimesSync, writeSync } from "node:fs";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileError, makeFolder, systemErrorCode } from "../../base/index.ts";

const touchEveryMs = 2000;
const deadAfterMs = 20_000;
const askEveryMs = 200;

/** Waits for the lock at `path`; `onWait` hears once who holds it. Throws FileError, or the signal's reason. */
export async function lockFile(
  path: string,
  { signal, onWait }: { signal?: AbortSignal; onWait?: (holder: string) => void } = {},
): Promise<Disposable> {
  makeFolder("hub", dirname(path));
  let isWaiting = false;
  while (!tryCreate(path)) {
    const holder = readHolder(path);
    if (holder === undefined) continue;
    if (isDead(holder)) {
      rmSync(path, { force: true });
      continue;
    }
    if (!isWaiting)
      onWait?.(`process ${holder.pid}${holder.host === hostname() ? "" : ` on ${holder.host}`}`);
    isWaiting = true;
    await delay(askEveryMs, undefined, { signal });
  }
  const timer = setInterval(() => touch(path), touchEveryMs).unref();
  return {
    [Symbol.dispose]: () => {
      clearInterval(timer);
      rmSync(path, { force: true });
    },
  };
}

interface Holder {
  pid: number;
  host: string;
  ageMs: number;
}

function tryCreate(path: string): boolean {
  try {
    const descriptor = openSync(path, "wx");
    writeSync(descriptor, `${process.pid} ${hostname()}`);
    closeSync(descriptor);
    return true;
  } catch (error) {
    if (systemErrorCode(error) === "EEXIST") return false;
    throw fileError("hub", "a writable file", path, error);
  }
}

function readHolder(path: string): Holder | undefined {
  try {
    const [pid, host = ""] = readFileSync(path, "utf8").split(" ");
    return { pid: Number(pid), host, ageMs: Date.now() - statSync(path).mtimeMs };
  } catch {
    // It was released between the two looks.
    return undefined;
  }
}

function isDead({ pid, host, ageMs }: Holder): boolean {
  if (ageMs > deadAfterMs) return true;
  // Freshly made and not yet written to, or of another machine: only time tells.
  if (host !== hostname() || !Number.isSafeInteger(pid) || pid <= 0 || pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return systemErrorCode(error) === "ESRCH";
  }
}

function touch(path: string): void {
  const now = new Date();
  try {
    utimesSync(path, now, now);
  } catch {
    // Taken over by another after a long sleep of this machine: see above, it does no harm.
  }
}
