/** `nautilus serve`: models behind OpenAI's routes and Triton's, with a playground. */
import type { Command } from "commander";
import { Option } from "commander";
import type { ServeCliOptions } from "../runs/serve.ts";
import {
  byteCount,
  collect,
  deviceOption,
  kvCacheOption,
  mmapOption,
  precisionOption,
  quantiseOption,
  realNumber,
  threadsOption,
  wholeNumber,
} from "./options.ts";

export function registerServe(program: Command): void {
  program
    .command("serve")
    .description("serve models over HTTP: OpenAI's routes, Triton's, metrics, and a playground at /")
    .requiredOption(
      "--model <folder>",
      "a run, one of its checkpoints, a pulled org/name, or a model of any format (repeatable)",
      collect,
    )
    .option("--model-name <name>", "what clients call it, in the order of --model (repeatable)", collect)
    .option("--host <address>", "address to listen on; 0.0.0.0 lets other machines in", "127.0.0.1")
    .option("--port <number>", "port of HTTP; 0 takes any free one", wholeNumber(0), 8000)
    .option("--grpc-port <number>", "port of Triton's gRPC service (default: none is opened)", wholeNumber(0))
    .option("--api-key <key>", "let in only those who name it (repeatable; also NAUTILUS_API_KEY)", collect)
    .option(
      "--cors <origin>",
      "let pages of this origin call from a browser; * for all (repeatable)",
      collect,
    )
    .option("--tls-cert <file>", "certificate in PEM: with --tls-key the server speaks TLS")
    .option("--tls-key <file>", "private key in PEM")
    .addOption(
      new Option("--body-limit <size>", "largest body of a request")
        .argParser(byteCount)
        .default(32 * 2 ** 20, "32MiB"),
    )
    .option(
      "--request-timeout <seconds>",
      "from a request's arrival to its last token",
      realNumber(0.001),
      600,
    )
    .option(
      "--drain-timeout <seconds>",
      "for running requests once the server is asked to end",
      realNumber(0.001),
      30,
    )
    .option("--max-concurrent <count>", "sequences handed to engines at a time", wholeNumber(1), 512)
    .option("--max-queue <count>", "sequences that may wait; more are answered 429", wholeNumber(0), 4096)
    .option("--max-batch <count>", "sequences that one engine runs at once", wholeNumber(1))
    .option("--max-context <tokens>", "longest prompt and answer together", wholeNumber(1))
    .option(
      "--cache-tokens <count>",
      "tokens that the cache holds (default: what memory allows)",
      wholeNumber(1),
    )
    .addOption(quantiseOption())
    .addOption(kvCacheOption())
    .option(
      "--adapter <name=folder>",
      "a LoRA adapter or the run that made it, served as model:name (repeatable); without a name one adapter of any method, for all requests",
      collect,
    )
    .option("--max-adapters <count>", "adapters that may be loaded at once", wholeNumber(0))
    .option("--max-adapter-rank <rank>", "highest rank of an adapter", wholeNumber(1), 16)
    .addOption(precisionOption())
    .addOption(mmapOption())
    .option("--tokenizer <path>", "tokenizer file or folder, for a model that holds none")
    .option("--no-playground", "serve no page at /")
    .option("--log-prompts", "put prompts into the log")
    .addOption(
      new Option("--log-level <level>", "what the log has")
        .choices(["silent", "error", "warn", "info", "debug"])
        .default("info"),
    )
    .addOption(deviceOption())
    .addOption(threadsOption())
    .action(async (options: ServeCliOptions) => {
      const { serveCommand } = await import("../runs/serve.ts");
      await serveCommand(options);
    });
}
