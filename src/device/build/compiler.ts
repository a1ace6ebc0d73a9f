/**
 * Finding and running the system's C++ compiler. Knows nothing of what is compiled.
 */
import { spawn } from "node:child_process";
import { DeviceError, messageOf } from "../../base/index.ts";

export interface Compiler {
  readonly command: string;
  /** The first line of `--version`: part of every cache key. */
  readonly version: string;
}

export interface ProcessResult {
  readonly exitCode: number;
  /** Standard output and error, together. */
  readonly output: string;
}

/** Runs a program to its end. Gives undefined where it cannot be started. */
export function runProcess(
  command: string,
  parameters: readonly string[],
): Promise<ProcessResult | undefined> {
  return new Promise((resolve) => {
    // Messages in English, so that the hints can recognise them.
    const child = spawn(command, parameters, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, LC_ALL: "C" },
    });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (output += text));
    child.on("error", () => {
      resolve(undefined);
    });
    child.on("close", (code) => {
      resolve({ exitCode: code ?? 1, output });
    });
  });
}

/**
 * The compiler to use: NAUTILUS_CXX alone where it is set, else the first of CXX, c++, g++, clang++ that runs.
 * Throws DeviceError with what to install.
 */
export async function findCompiler(): Promise<Compiler> {
  const chosen = process.env["NAUTILUS_CXX"];
  const candidates = chosen ? [chosen] : [process.env["CXX"], "c++", "g++", "clang++"];
  for (const command of candidates) {
    if (command === undefined || command === "") continue;
    const result = await runProcess(command, ["--version"]).catch(messageOf);
    if (typeof result === "object" && result.exitCode === 0) {
      return { command, version: result.output.split("\n")[0].trim() };
    }
  }
  const install =
    process.platform === "darwin"
      ? "run 'xcode-select --install'"
      : "install g++ or clang, such as with 'apt install g++'";
  throw new DeviceError("cpu", `expected a C++17 compiler, got ${chosen ? `no program ${chosen}` : "none"}`, {
    hint: chosen ? "NAUTILUS_CXX names it" : `${install}, or name one with NAUTILUS_CXX`,
  });
}
