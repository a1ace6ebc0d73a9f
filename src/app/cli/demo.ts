/** `nautilus demo` (and `npm start`): trains a small model on this repository and lets it write. */
import type { Command } from "commander";
import type { DemoCliOptions } from "../runs/demo.ts";
import { deviceOption, realNumber, threadsOption } from "./options.ts";

export function registerDemo(program: Command): void {
  program
    .command("demo")
    .description("train a small Nemotron model on Nautilus' own source and docs, then write text live")
    .option("--seconds <number>", "time to train for", realNumber(1), 70)
    .option("--run <folder>", "folder of the run", "runs/demo")
    .addOption(deviceOption())
    .addOption(threadsOption())
    .exitOverride()
    .action(async (options: DemoCliOptions) => {
      const { demoCommand } = await import("../runs/demo.ts");
      await demoCommand(options);
    });
}
