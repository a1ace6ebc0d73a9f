/** The made-up documents of the fixtures as a data folder: JSON lines, and CSV or Parquet nowhere needed. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";

/** Every split that a task may ask for holds the same rows, as for the reference harness. */
export function writeMadeUpData(documents: string): { folder: string } & Disposable {
  const parsed = z
    .record(z.string(), z.array(z.record(z.string(), z.unknown())))
    .parse(JSON.parse(readFileSync(documents, "utf8")));
  const folder = mkdtempSync(join(tmpdir(), "nautilus-eval-"));
  for (const [name, rows] of Object.entries(parsed)) {
    mkdirSync(join(folder, name));
    const text = rows.map((row) => `${JSON.stringify(row)}\n`).join("");
    for (const split of ["train", "validation", "test"])
      writeFileSync(join(folder, name, `${split}.jsonl`), text);
  }
  return { folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) };
}
