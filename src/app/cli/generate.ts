/** `nautilus generate`: continues prompts with a trained model. */
import type { Command } from "commander";
import type { GenerateCliOptions } from "../runs/generate.ts";
import {
  adapterOption,
  collect,
  deviceOption,
  jsonOption,
  kvCacheOption,
  mmapOption,
  precisionOption,
  quantiseOption,
  realNumber,
  threadsOption,
  wholeNumber,
} from "./options.ts";

export function registerGenerate(program: Command): void {
  program
    .command("generate")
    .description("continue a prompt with a trained model; without --prompt, read it from standard input")
    .requiredOption(
      "--model <folder>",
      "a run, one of its checkpoints, a pulled org/name, a Hugging Face folder, a .nemo, a NeMo or Megatron folder, or a GGUF",
    )
    .addOption(adapterOption())
    .option("--prompt <text>", "text to continue (repeatable: prompts are generated as one batch)", collect)
    .option("--chat", "ask each prompt as a user's turn, in the model's chat format")
    .option("--system <text>", "with --chat: what the conversation begins with")
    .option("--max-tokens <count>", "tokens to generate", wholeNumber(1), 128)
    .option("--temperature <value>", "0 is greedy", realNumber(0), 1)
    .option("--top-k <count>", "draw from the k likeliest tokens; 0 is off", wholeNumber(0), 0)
    .option(
      "--top-p <share>",
      "draw from the fewest tokens that reach this probability; 0 is off",
      realNumber(0),
      0,
    )
    .option("--min-p <share>", "drop tokens less likely than this share of the likeliest", realNumber(0), 0)
    .option("--repetition-penalty <factor>", "1 is off", realNumber(0), 1)
    .option("--presence-penalty <value>", "taken off tokens that were drawn before", realNumber(), 0)
    .option("--frequency-penalty <value>", "taken off for each time a token was drawn", realNumber(), 0)
    .option("--min-tokens <count>", "tokens before the text may end", wholeNumber(0), 0)
    .option("--regex <pattern>", "write only what matches this regular expression as a whole")
    .option("--json-schema <file>", "write only JSON that is valid under this schema")
    .option("--seed <number>", "the same seed draws the same tokens", wholeNumber(0), 0)
    .option("--stop <text>", "end at this text (repeatable)", collect)
    .option("--count <number>", "samples per prompt, with seeds counting up", wholeNumber(1), 1)
    .addOption(quantiseOption())
    .addOption(kvCacheOption())
    .addOption(precisionOption())
    .addOption(mmapOption())
    .option("--tokenizer <path>", "tokenizer file or folder, for a model that holds none")
    .addOption(deviceOption())
    .addOption(threadsOption())
    .option("--logprobs", "print each token with its log probability")
    .addOption(jsonOption())
    .exitOverride()
    .action(async (options: GenerateCliOptions) => {
      const { generateCommand } = await import("../runs/generate.ts");
      await generateCommand(options);
    });
}
