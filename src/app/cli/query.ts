/** `nautilus query`: asks a server the way NeMo's query client does. */
import type { Command } from "commander";
import type { QueryCliOptions } from "../runs/query.ts";
import { collect, jsonOption, realNumber, wholeNumber } from "./options.ts";

export function registerQuery(program: Command): void {
  program
    .command("query")
    .description(
      "ask a Nautilus or Triton server as NeMo's query client does; without --prompt, read standard input",
    )
    .option("--url <address>", "of the server's HTTP side", "localhost:8000")
    .option("--model-name <name>", "as the server calls it (default: its only model)")
    .option("--prompt <text>", "text to continue (repeatable: one request for all)", collect)
    .option("--max-output-token <count>", "tokens to generate", wholeNumber(1), 200)
    .option("--top-k <count>", "1 is greedy, 0 is off", wholeNumber(0), 1)
    .option("--top-p <share>", "0 is off", realNumber(0), 0)
    .option("--temperature <value>", "of sampling", realNumber(0), 1)
    .option("--random-seed <number>", "the same seed draws the same tokens", wholeNumber(0))
    .option("--repetition-penalty <factor>", "1 is off", realNumber(0))
    .option("--stop <text>", "end at this text (repeatable)", collect)
    .option("--stream", "print the answer as it comes, over gRPC (one prompt)")
    .option("--grpc-url <address>", "of the server's gRPC side, for --stream", "localhost:8001")
    .option("--init-timeout <seconds>", "until server and model must be ready", realNumber(0), 10)
    .option("--api-key <key>", "where the server asks for one (default: NAUTILUS_API_KEY)")
    .addOption(jsonOption())
    .exitOverride()
    .action(async (options: QueryCliOptions) => {
      const { queryCommand } = await import("../runs/query.ts");
      await queryCommand(options);
    });
}
