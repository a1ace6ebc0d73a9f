/** `nautilus eval`: scores a model on published tasks; `eval list`, `eval compare`. */
import { Option } from "commander";
import type { Command } from "commander";
import type { EvalCliOptions } from "../runs/eval/run.ts";
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

export function registerEval(program: Command): void {
  const command = program
    .command("eval")
    .description("score a model on published tasks, as the reference harness does");
  command
    .option("--model <folder>", "a run, one of its checkpoints, a pulled org/name, or a model of any format")
    .addOption(adapterOption())
    .option("--url <address>", "a server instead: an OpenAI-compatible /v1, or a KServe model's address")
    .option("--model-name <name>", "which of the server's models (default: its only one)")
    .option("--tokenizer <path>", "its file or folder: for a server's model, or one that holds none")
    .option("--api-key <key>", "where the server asks for one (default: NAUTILUS_API_KEY)")
    .option(
      "--max-length <tokens>",
      "longest prompt and answer of the server's model (default: as it says, else 4096)",
      wholeNumber(2),
    )
    .option("--tasks <names>", "tasks and groups, separated by commas (see 'nautilus eval list')")
    .option("--data <folder>", "folder with the data sets (repeatable)", collect)
    .option(
      "--fetch",
      "bring data sets that are missing from the hub into its cache; their licences are shown",
    )
    .option("--task-file <path>", "TypeScript module with tasks of your own (repeatable)", collect)
    .option("--output <folder>", "logs, results and report; a run that was interrupted goes on from there")
    .option(
      "--limit <count>",
      "only the first so many samples of each task; below 1: that share",
      realNumber(0),
    )
    .option(
      "--num-fewshot <count>",
      "examples before each question (default: the task's own)",
      wholeNumber(0),
    )
    .addOption(
      new Option("--mmlu <way>", "how MMLU is asked")
        .choices(["original", "lm-eval", "helm"])
        .default("original"),
    )
    .option("--no-nvidia", "leave out the second column, as NVIDIA's copy of the harness scores")
    .option("--temperature <value>", "of tasks that sample answers", realNumber(0))
    .option("--batch-tokens <count>", "tokens that the model reads in one step", wholeNumber(1))
    .option(
      "--bootstrap-iterations <count>",
      "resamples for standard errors of perplexities",
      wholeNumber(0),
      100_000,
    )
    .option("--seed <number>", "of examples and sampled answers", wholeNumber(0), 1234)
    .option("--run-code", "let HumanEval and MBPP run the code that the model writes")
    .addOption(quantiseOption())
    .addOption(kvCacheOption())
    .addOption(precisionOption())
    .addOption(mmapOption())
    .addOption(deviceOption())
    .addOption(threadsOption())
    .addOption(jsonOption())
    .exitOverride()
    .action(async (options: EvalCliOptions) => {
      const { evalCommand } = await import("../runs/eval/run.ts");
      await evalCommand(options);
    });
  command
    .command("list")
    .description("the tasks and groups there are")
    .addOption(jsonOption())
    .exitOverride()
    .action(async (_: unknown, own: Command) => {
      const { listCommand } = await import("../runs/eval/list.ts");
      listCommand(own.optsWithGlobals());
    });
  command
    .command("compare")
    .description("two runs over the same samples, with paired significance")
    .argument("<first>", "output folder of a run")
    .argument("<second>", "output folder of another")
    .addOption(jsonOption())
    .exitOverride()
    .action(async (first: string, second: string, _: unknown, own: Command) => {
      const { compareCommand } = await import("../runs/eval/compare.ts");
      compareCommand(first, second, own.optsWithGlobals());
    });
}
