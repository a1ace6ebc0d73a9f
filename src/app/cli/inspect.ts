/** `nautilus inspect`: what is in a checkpoint, without loading it. */
import type { Command } from "commander";
import type { InspectCliOptions } from "../runs/inspect/inspect.ts";
import { jsonOption } from "./options.ts";

export function registerInspect(program: Command): void {
  program
    .command("inspect")
    .description("show the tensors, configuration, tokenizer and license of a checkpoint of any format")
    .argument(
      "<path>",
      "a run, a model folder, a .nemo, a NeMo or Megatron folder, a GGUF, a safetensors or PyTorch file, an adapter, a config.json or a tokenizer",
    )
    .option("--all", "list the tensors of every layer (default: layers that are alike on one line)")
    .addOption(jsonOption())
    .exitOverride()
    .action(async (path: string, options: InspectCliOptions) => {
      const { inspectCommand } = await import("../runs/inspect/inspect.ts");
      await inspectCommand(path, options);
    });
}
