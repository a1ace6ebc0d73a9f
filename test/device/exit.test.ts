/** The end of a program: worker threads still spin in the kernel library when Node lets go of it, so it must stay mapped. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const program = fileURLToPath(new URL("short-program.ts", import.meta.url));
const numRuns = 30;

function run(numThreads: number): Promise<string> {
  const child = spawn(process.execPath, [program, String(numThreads)], { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  child.stdout.on("data", (piece: Buffer) => (output += piece.toString()));
  // Says that kernels are compiled, where they were not: no part of the ending.
  child.stderr.resume();
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve(`${output.trim()} ${signal ?? code}`));
  });
}

it(`a program that computes to its last moment ends well, ${numRuns} times`, async () => {
  const endings: string[] = [];
  for (let i = 0; i < numRuns; i++) endings.push(await run([2, 3, 8][i % 3]));
  expect(endings).toEqual(Array.from({ length: numRuns }, () => "done 0"));
});
