/** `nautilus model info|list`: sizes of models by arithmetic alone. */
import type { Command } from "commander";
import { jsonOption, wholeNumber } from "./options.ts";

export function registerModel(program: Command): void {
  const model = program.command("model").description("what a model is: parameters, memory, operations");
  model
    .command("info")
    .description(
      "parameters, memory to train and serve, and operations per token of a named model, a config.json or a checkpoint",
    )
    .argument("<name>", "a name such as nemotron-3-8b, a config.json, or a checkpoint of any format")
    .option("--sequence-length <tokens>", "length that attention is counted for", wholeNumber(1))
    .addOption(jsonOption())
    .exitOverride()
    .action(async (name: string, options: { sequenceLength?: number; json?: boolean }) => {
      const { printModelInfo } = await import("../runs/modelInfo.ts");
      await printModelInfo(name, options);
    });
  model
    .command("list")
    .description("the named models")
    .addOption(jsonOption())
    .exitOverride()
    .action(async (options: { json?: boolean }) => {
      const { printModelList } = await import("../runs/modelInfo.ts");
      printModelList(options);
    });
}
