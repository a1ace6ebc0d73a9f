/** Temporary folders that go away when they are released, and at the latest when the process ends. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { withFileErrors } from "../base/index.ts";

const open = new Set<string>();

export interface TemporaryFolder extends Disposable {
  readonly path: string;
}

/** Makes a folder below `parent`, by default the system's folder for temporary files (TMPDIR). Throws FileError. */
export function makeTemporaryFolder(parent = tmpdir()): TemporaryFolder {
  const path = withFileErrors("checkpoint", "a writable folder", parent, () =>
    mkdtempSync(join(parent, "nautilus-")),
  );
  if (open.size === 0) process.once("exit", removeAll);
  open.add(path);
  return {
    path,
    [Symbol.dispose]() {
      open.delete(path);
      if (open.size === 0) process.removeListener("exit", removeAll);
      rmSync(path, { recursive: true, force: true });
    },
  };
}

function removeAll(): void {
  for (const path of open) rmSync(path, { recursive: true, force: true });
}
