/** The folder of a tuning run: what may stand there. */
import { existsSync, readdirSync } from "node:fs";
import { ConfigError } from "../../../base/index.ts";
import { listCheckpoints } from "../../../train/index.ts";
import type { TuneRecipe } from "../../../train/index.ts";

/** A run of another recipe, or a finished one, is not gone on with unasked. Throws ConfigError. */
export function expectFreshRun({ run }: TuneRecipe): void {
  const hasRun = existsSync(run) && readdirSync(run).length > 0;
  if (hasRun && listCheckpoints(run).length === 0) {
    throw new ConfigError("tune", `expected a new folder or a tuning run at ${run}, got something else`, {
      hint: "name another run, or replace it with --force",
    });
  }
}
