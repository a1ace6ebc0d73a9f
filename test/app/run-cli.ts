/** Runs the command line as a user does, and gives what it printed. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { fileURLToPath } from "node:url";

const launcher = fileURLToPath(new URL("../../bin/nautilus.js", import.meta.url));

export interface CliResult {
  /** Exit code; null where a signal ended it. */
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface CliProcess {
  child: ChildProcess;
  result: Promise<CliResult>;
}

export function startCli(
  args: readonly string[],
  options: { cwd?: string; env?: Readonly<Record<string, string>> } = {},
): CliProcess {
  const child = spawn(process.execPath, [launcher, ...args], {
    ...options,
    env: { ...process.env, ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const output = { stdout: "", stderr: "" };
  child.stdout.on("data", (piece: Buffer) => (output.stdout += piece.toString()));
  child.stderr.on("data", (piece: Buffer) => (output.stderr += piece.toString()));
  const result = new Promise<CliResult>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, ...output }));
  });
  return { child, result };
}

export function runCli(...args: string[]): Promise<CliResult> {
  return startCli(args).result;
}
