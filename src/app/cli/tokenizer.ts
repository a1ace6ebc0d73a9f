/** `nautilus tokenizer train|encode`. */
import type { Command } from "commander";
import type { TokenizerTrainOptions } from "../runs/tokenizer.ts";
import { collect, jsonOption, wholeNumber } from "./options.ts";

export function registerTokenizer(program: Command): void {
  const tokenizer = program.command("tokenizer").description("train and try tokenizers");
  tokenizer
    .command("train")
    .description("train a byte-fallback BPE on text, JSON lines or source trees")
    .argument("<paths...>", "files or folders")
    .requiredOption("--output <folder>", "folder for tokenizer.json and tokenizer_config.json")
    .option("--vocab-size <count>", "pieces in all", wholeNumber(300), 32768)
    .option("--sample-bytes <count>", "text to learn from at most", wholeNumber(1), 100_000_000)
    .option("--text-key <name>", "field of JSON lines", "text")
    .option("--special <piece>", "a further special token (repeatable)", collect)
    .exitOverride()
    .action(async (paths: string[], options: TokenizerTrainOptions) => {
      const { trainTokenizerCommand } = await import("../runs/tokenizer.ts");
      await trainTokenizerCommand(paths, options);
    });
  tokenizer
    .command("encode")
    .description("show how a text is cut into pieces")
    .argument("<text>", "text to encode")
    .requiredOption("--tokenizer <file>", "tokenizer.json or a folder with one")
    .addOption(jsonOption())
    .exitOverride()
    .action(async (text: string, options: { tokenizer: string; json?: boolean }) => {
      const { encodeCommand } = await import("../runs/tokenizer.ts");
      encodeCommand(text, options);
    });
}
