/** The folder of a tuning run: what may stand there, and what --force may take away. */
import { existsSync, readdirSync, rmSync } from "node:fs";
import { relative, resolve } from "node:path";
import { ConfigError } from "../../../base/index.ts";
import { listCheckpoints } from "../../../train/index.ts";
import type { TuneRecipe } from "../../../train/index.ts";

/** For --force. Throws ConfigError rather than take away the folder one stands in, or one above it. */
export function removeRun(run: string): void {
  if (!relative(resolve(run), process.cwd()).startsWith("..")) {
    throw new ConfigError("tune", `expected a run's own folder to replace, got ${run}`, {
      hint: "the working folder is in it",
    });
  }
  rmSync(run, { recursive: true, force: true });
}

/** A run of another recipe, or a finished one, is not gone on with unasked. Throws ConfigError. */
export function expectFreshRun({ run }: TuneRecipe): void {
  const hasRun = existsSync(run) && readdirSync(run).length > 0;
  if (hasRun && listCheckpoints(run).length === 0) {
    throw new ConfigError("tune", `expected a new folder or a tuning run at ${run}, got something else`, {
      hint: "name another run, or replace it with --force",
    });
  }
}
