/**
 * The command line. Each verb is one file that says its options; what a verb does is imported when it runs, so that
 * `nautilus --help` stays quick. Exit codes: 0 done, 2 the user's mistake (one sentence), 1 a fault of ours, 130 interrupted.
 */
import { Command, CommanderError } from "commander";
import { NautilusError, messageOf } from "../../base/index.ts";
import { packageVersion } from "../version.ts";
import { registerAdapter } from "./adapter.ts";
import { registerBench } from "./bench.ts";
import { registerConvert } from "./convert.ts";
import { registerData } from "./data.ts";
import { registerDemo } from "./demo.ts";
import { registerDoctor } from "./doctor.ts";
import { registerEval } from "./eval.ts";
import { registerGenerate } from "./generate.ts";
import { registerInspect } from "./inspect.ts";
import { registerModel } from "./model.ts";
import { registerPull } from "./pull.ts";
import { registerQuery } from "./query.ts";
import { registerServe } from "./serve.ts";
import { registerTokenizer } from "./tokenizer.ts";
import { registerTrain } from "./train.ts";
import { registerTune } from "./tune.ts";

function buildProgram(): Command {
  const program = new Command("nautilus")
    .description("Train, customise and serve Nemotron-class language models, from Node")
    .version(packageVersion())
    .option("--debug", "print stack traces of errors")
    .showHelpAfterError("(run with --help for the options)")
    .exitOverride();
  for (const register of [
    registerDemo,
    registerTrain,
    registerTune,
    registerAdapter,
    registerGenerate,
    registerEval,
    registerServe,
    registerPull,
    registerQuery,
    registerTokenizer,
    registerData,
    registerModel,
    registerConvert,
    registerInspect,
    registerBench,
    registerDoctor,
  ]) {
    register(program);
  }
  for (const command of program.commands) command.exitOverride();
  return program;
}

const interruptedExitCode = 130;

function report(error: unknown, isDebugging: boolean): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  // Ctrl-C: the verb has said what becomes of its work.
  if (error instanceof Error && error.name === "AbortError") return interruptedExitCode;
  if (isDebugging && error instanceof Error) process.stderr.write(`${error.stack ?? error.message}\n`);
  else process.stderr.write(`error: ${messageOf(error)}\n`);
  if (error instanceof NautilusError) return error.exitCode;
  if (!isDebugging) process.stderr.write("(run again with --debug for where it happened)\n");
  return 1;
}

// A reader that goes away (`nautilus … | head`) is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
});

const isDebugging = process.argv.includes("--debug");
try {
  await buildProgram().parseAsync(process.argv.filter((argument) => argument !== "--debug"));
} catch (error) {
  process.exitCode = report(error, isDebugging);
}
