/** `nautilus train`: runs a recipe. */
import type { Command } from "commander";
import type { TrainCliOptions } from "../runs/train.ts";
import { collect, deviceOption, jsonOption, threadsOption } from "./options.ts";

export function registerTrain(program: Command): void {
  program
    .command("train")
    .description("train a model by a recipe; run the same command again to resume")
    .argument("<recipe>", "a TypeScript or JavaScript module with a default export, YAML, or JSON")
    .option("--set <path=value>", "change a field of the recipe, e.g. optim.lr=1e-3 (repeatable)", collect)
    .addOption(deviceOption().default(undefined))
    .addOption(threadsOption())
    .option("--dry-run", "print the memory and time the run would take, and stop")
    .option("--no-resume", "refuse to go on with a run that has checkpoints")
    .addOption(jsonOption())
    .exitOverride()
    .action(async (recipe: string, options: TrainCliOptions) => {
      const { trainCommand } = await import("../runs/train.ts");
      await trainCommand(recipe, options);
    });
}
