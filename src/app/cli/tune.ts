/** `nautilus tune`: customises a model. */
import type { Command } from "commander";
import type { TuneCliOptions } from "../runs/tune/tune.ts";
import { collect, deviceOption, jsonOption, quantiseOption, threadsOption, wholeNumber } from "./options.ts";

export function registerTune(program: Command): void {
  program
    .command("tune")
    .description(
      "customise a model: SFT, LoRA, P-tuning, adapters, DPO; run the same command again to resume",
    )
    .argument("[recipe]", "a TypeScript or JavaScript module with a default export, YAML, or JSON")
    .option("--method <name>", "full, lora, dora, ia3, houlsby, parallel, prompt-tuning or p-tuning")
    .option("--objective <name>", "sft, dpo, ipo, kto, rpo-sq, rpo-bwd-kl or rpo-fwd-kl")
    .option("--model <folder>", "the base: a run, a checkpoint or a model of any format")
    .option("--data <file>", "JSON lines to learn from (repeatable)", collect)
    .addOption(quantiseOption())
    .option("--run <folder>", "folder of the run (default without a recipe: runs/tune)")
    .option("--set <path=value>", "change a field of the recipe, e.g. optim.lr=1e-3 (repeatable)", collect)
    .option("--show-data [count]", "print examples with what is learnt of them, and stop", wholeNumber(1))
    .option(
      "--find-lr [steps]",
      "sweep the learning rate, show the losses and a suggestion, and stop",
      wholeNumber(2),
    )
    .option("--dry-run", "check recipe and data, say what would be trained and the memory it takes, and stop")
    .option("--force", "replace a run that is there")
    .addOption(deviceOption().default(undefined))
    .addOption(threadsOption())
    .addOption(jsonOption())
    .addHelpText(
      "after",
      `
Fields that --set changes most often: epochs, steps, batchSize, optim.lr,
data.validation, method.rank. Without a validation file a share of the data is
held out.

  nautilus tune --model runs/demo --method lora --data chats.jsonl
`,
    )
    .exitOverride()
    .action(async (recipe: string | undefined, options: TuneCliOptions) => {
      const { tuneCommand } = await import("../runs/tune/tune.ts");
      await tuneCommand(recipe, options);
    });
}
