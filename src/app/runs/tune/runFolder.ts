/** The folder of a tuning run: what may stand there. */
import { existsSync, readdirSync } from "node:fs";
import { ConfigError } from "../../../base/index.ts";
import { listCheckpoints } from "../../../train/index.ts";
import type { TuneRecipe } from "../../../train/index.ts";

/** What a run has written before its first checkpoint. */
const earlyNames = new Set(["best", "checkpoints", "metrics.jsonl", "tensorboard"]);

/**
 * Nothing, a run with checkpoints, or one that a full disk or a crash ended before its first, which begins again. Anything else is not
 * written into. Throws ConfigError.
 */
export function expectFreshRun({ run }: TuneRecipe): void {
  const names = existsSync(run) ? readdirSync(run) : [];
  if (names.every((name) => earlyNames.has(name)) || listCheckpoints(run).length > 0) return;
  throw new ConfigError("tune", `expected a new folder or a tuning run at ${run}, got something else`, {
    hint: "name another run, or replace it with --force",
  });
}
