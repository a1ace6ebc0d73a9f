/** `nautilus data prepare|inspect`: Megatron token files. */
import type { Command } from "commander";
import type { DataPrepareOptions } from "../runs/data.ts";
import { jsonOption, wholeNumber } from "./options.ts";

export function registerData(program: Command): void {
  const data = program.command("data").description("turn text into Megatron .bin/.idx token files");
  data
    .command("prepare")
    .description("tokenize JSON lines (.gz, .zst), plain text or source trees")
    .argument("<paths...>", "files or folders")
    .requiredOption("--tokenizer <file>", "tokenizer.json or a folder with one")
    .requiredOption("--output <prefix>", "writes PREFIX.bin and PREFIX.idx")
    .option("--text-key <name>", "field of JSON lines", "text")
    .option("--workers <count>", "files at once", wholeNumber(1))
    .exitOverride()
    .action(async (paths: string[], options: DataPrepareOptions) => {
      const { prepareCommand } = await import("../runs/data.ts");
      await prepareCommand(paths, options);
    });
  data
    .command("inspect")
    .description("counts, dtype and first tokens of a .bin/.idx pair")
    .argument("<prefix>", "path without .bin and .idx")
    .option("--tokenizer <file>", "also show text")
    .addOption(jsonOption())
    .exitOverride()
    .action(async (prefix: string, options: { tokenizer?: string; json?: boolean }) => {
      const { inspectCommand } = await import("../runs/data.ts");
      inspectCommand(prefix, options);
    });
}
