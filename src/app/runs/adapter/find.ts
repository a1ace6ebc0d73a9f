/** Where the adapter of a path lies. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { CheckpointError } from "../../../base/index.ts";
import { isAdapterFolder } from "../../../models/index.ts";
import { listCheckpoints } from "../../../train/index.ts";

/** The adapter behind a path: a folder, a file of NeMo, or the finished or newest one of a tuning run; undefined where there is none. */
export function findAdapterFolder(path: string): string | undefined {
  const newest = listCheckpoints(path).at(-1)?.path;
  const candidates = [
    path,
    join(path, "adapter"),
    ...(newest === undefined ? [] : [join(newest, "adapter")]),
  ];
  return candidates.find((folder) => isAdapterFolder(folder));
}

/** The same, for one that must be there. Throws CheckpointError. */
export function findAdapter(path: string): string {
  const found = findAdapterFolder(path);
  if (found !== undefined) return found;
  throw new CheckpointError(
    "adapter",
    `expected an adapter or a tuning run at ${path}, got ${existsSync(path) ? "neither" : "nothing there"}`,
    { hint: "train one with 'nautilus tune'" },
  );
}
