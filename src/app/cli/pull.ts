/** `nautilus pull`: models from a Hugging Face hub into the shared cache. */
import type { Command } from "commander";
import type { PullCliOptions } from "../runs/pull.ts";
import { collect, jsonOption, wholeNumber } from "./options.ts";

const environment = `
Every other verb then takes the name: nautilus generate --model org/name.

Variables, as Python's library has them:
  HF_TOKEN         for gated and private models (else the login of 'hf')
  HF_HOME          home of cache and login (default: ~/.cache/huggingface)
  HF_HUB_CACHE     the cache alone
  HF_ENDPOINT      address of a mirror
  HF_HUB_OFFLINE   1: use only what the cache has`;

export function registerPull(program: Command): void {
  program
    .command("pull")
    .description("fetch a model from the Hugging Face hub, or go on where a pull stopped")
    .argument("<model>", "org/name")
    .option("--revision <name>", "branch, tag or commit", "main")
    .option("--include <pattern>", "take only files like this, e.g. '*.nemo' (repeatable)", collect)
    .option("--exclude <pattern>", "leave out files like this (repeatable)", collect)
    .option("--connections <count>", "requests at once", wholeNumber(1), 8)
    .option("--verify", "also check what the cache already has")
    .option("--dry-run", "show what would come")
    .addOption(jsonOption())
    .addHelpText("after", environment)
    .exitOverride()
    .action(async (model: string, options: PullCliOptions) => {
      const { pullCommand } = await import("../runs/pull.ts");
      await pullCommand(model, options);
    });
}
