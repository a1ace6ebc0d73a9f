/** `nautilus adapter merge|inspect|export`. */
import type { Command } from "commander";
import type { AdapterCliOptions } from "../runs/adapter/adapter.ts";
import { deviceOption, jsonOption, threadsOption } from "./options.ts";

export function registerAdapter(program: Command): void {
  const adapter = program.command("adapter").description("what a tuned adapter is, and what to make of it");
  adapter
    .command("inspect")
    .description("method, modules, sizes and base of an adapter")
    .argument("<folder>", "an adapter folder, a LoRA .nemo of NeMo, or a tuning run")
    .addOption(jsonOption())
    .exitOverride()
    .action(async (folder: string, options: { json?: boolean }) => {
      const { inspectAdapter } = await import("../runs/adapter/adapter.ts");
      inspectAdapter(folder, options);
    });
  for (const [name, description] of [
    ["merge", "write the base with the adapter in its weights, as a model folder"],
    ["export", "write an adapter as PEFT reads it"],
  ] as const) {
    adapter
      .command(name)
      .description(description)
      .argument("<folder>", "an adapter folder, a LoRA .nemo of NeMo, or a tuning run")
      .requiredOption("--output <folder>", "where to write")
      .option("--model <folder>", "the base (default: the one that the adapter names)")
      .option("--force", "replace what is there")
      .addOption(deviceOption())
      .addOption(threadsOption())
      .exitOverride()
      .action(async (folder: string, options: AdapterCliOptions) => {
        const { exportAdapter, mergeIntoModel } = await import("../runs/adapter/adapter.ts");
        await (name === "merge" ? mergeIntoModel : exportAdapter)(folder, options);
      });
  }
}
