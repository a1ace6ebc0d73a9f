/** `nautilus bench gpu`: how near the hardware's limits training and inference run, beside PyTorch. */
import { Option, type Command } from "commander";
import type { BenchGpuOptions } from "../runs/benchGpu.ts";
import { collect, jsonOption, wholeNumber } from "./options.ts";

export function registerBench(program: Command): void {
  const bench = program.command("bench").description("measure this machine with Nautilus");
  bench
    .command("gpu")
    .description("matmul, attention, training step, prefill and decode of the 8B model on one GPU")
    .option("--only <name>", "matmul, attention, train, lora, prefill or decode (repeatable)", collect)
    .option("--layers <count>", "layers of the model (fewer for small cards)", wholeNumber(1), 32)
    .option(
      "--micro-batch <sequences>",
      "sequences of a training step (default: 4, or fewer by memory)",
      wholeNumber(1),
    )
    .option("--loss-chunk <MiB>", "memory for the logits of one chunk of the loss", wholeNumber(1), 1024)
    .addOption(
      new Option(
        "--recompute <policy>",
        "what a training step makes again (default: nothing, or more by memory)",
      ).choices(["none", "norm-activation", "block"]),
    )
    .option("--master", "keep an f32 master copy in the training step: 12 bytes a parameter instead of 8")
    .option("--peer <script>", "the PyTorch peer to run for each figure")
    .option("--python <command>", "Python with torch, for the peer", "python3")
    .addOption(jsonOption())
    .exitOverride()
    .action(async (options: BenchGpuOptions) => {
      const { benchGpuCommand } = await import("../runs/benchGpu.ts");
      await benchGpuCommand(options);
    });
}
