/** `nautilus convert`: checkpoints of one format as another. */
import { Option } from "commander";
import type { Command } from "commander";
import type { ConvertCliOptions } from "../runs/convert/convert.ts";
import { byteCount, jsonOption } from "./options.ts";

export function registerConvert(program: Command): void {
  program
    .command("convert")
    .description("write a checkpoint of any supported format as a Hugging Face folder or a .nemo")
    .argument("<source>", "a run, a Hugging Face folder, a .nemo, a NeMo or Megatron folder, or a GGUF")
    .argument("<target>", "the folder or .nemo to write")
    .addOption(
      new Option("--to <format>", "what to write (default: by the target's ending)").choices(["hf", "nemo"]),
    )
    .addOption(
      new Option("--dtype <dtype>", "floats of the result (default: those of the source)").choices([
        "f32",
        "bf16",
        "f16",
      ]),
    )
    .option("--shard-size <bytes>", "largest weights file of a folder, such as 5GB or 500MiB", byteCount)
    .option("--license <name>", "license for the model card (default: that of the source)")
    .option("--base-model <org/name>", "base model for the model card (default: that of the source)")
    .option("--verify", "read the result back and compare every byte")
    .option("--force", "replace what is at the target")
    .addOption(jsonOption())
    .exitOverride()
    .action(async (source: string, target: string, options: ConvertCliOptions) => {
      const { convertCommand } = await import("../runs/convert/convert.ts");
      await convertCommand(source, target, options);
    });
}
