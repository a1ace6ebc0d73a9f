/** sha256 sums of a folder's files in checksums.json, so that a checkpoint that was damaged on disk is not trained on. */
import { existsSync, readdirSync } from "node:fs";
import { join, relative } from "node:path";
import { z } from "zod";
import {
  CheckpointError,
  parseConfig,
  readJson,
  sha256File,
  withFileErrors,
  writeText,
} from "../base/index.ts";

const fileName = "checksums.json";
const component = "checkpoint";
const schema = z.strictObject({ sha256: z.record(z.string(), z.string().regex(/^[0-9a-f]{64}$/)) });

function filesBelow(folder: string): string[] {
  return withFileErrors(component, "a readable folder", folder, () =>
    readdirSync(folder, { recursive: true, withFileTypes: true }),
  )
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).replaceAll("\\", "/"))
    .sort();
}

/** Sums every file below `folder`. Throws FileError. */
export function writeChecksums(folder: string): void {
  const sums = filesBelow(folder)
    .filter((name) => name !== fileName)
    .map((name) => [name, sha256File(component, join(folder, name))] as const);
  writeText(
    component,
    join(folder, fileName),
    `${JSON.stringify({ sha256: Object.fromEntries(sums) }, undefined, 1)}\n`,
  );
}

/** Compares every summed file. Throws CheckpointError naming the first that is missing or differs. */
export function verifyChecksums(folder: string): void {
  const path = join(folder, fileName);
  const { sha256 } = parseConfig(fileName, schema, readJson(component, path));
  for (const [name, expected] of Object.entries(sha256)) {
    const got = existsSync(join(folder, name)) ? sha256File(component, join(folder, name)) : undefined;
    if (got === expected) continue;
    throw new CheckpointError(
      component,
      `expected ${name} in ${folder} with sha256 ${expected.slice(0, 12)}…, got ${got === undefined ? "no such file" : `${got.slice(0, 12)}…`}`,
      {
        hint: "the file was damaged; remove this checkpoint to go on from the one before",
        fields: { folder, name, reason: "checksum" },
      },
    );
  }
}
