/** `nautilus doctor`: what this machine has for Nautilus, what is missing, and how to get it. */
import type { Command } from "commander";
import { jsonOption } from "./options.ts";

export function registerDoctor(program: Command): void {
  program
    .command("doctor")
    .description("check this machine: cores, instruction sets, compiler, cache folder, GPU and its libraries")
    .addOption(jsonOption())
    .exitOverride()
    .action(async (options: { json?: boolean }) => {
      const { printDoctor } = await import("../runs/doctor.ts");
      await printDoctor(options);
    });
}
