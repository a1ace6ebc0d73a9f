/** Runs Python scripts of this folder with the Python that NAUTILUS_PYTHON names (default python3). */
import { execFile, spawnSync } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";

export const python = process.env["NAUTILUS_PYTHON"] ?? "python3";
const run = promisify(execFile);

/** Whether these modules are there; prints why a test is skipped where they are not. */
export function hasModules(test: string, modules: readonly string[]): boolean {
  const found = spawnSync(python, ["-c", modules.map((name) => `import ${name}`).join("\n")], {
    encoding: "utf8",
  });
  if (found.status === 0) return true;
  const reason = found.error?.message ?? found.stderr.trim().split("\n").at(-1);
  console.log(`${test} skipped: ${python} has no ${modules.join(", ")} (${reason})`);
  return false;
}

/** The last line that a script prints, as JSON. Nothing is asked of the network beyond this machine. */
export async function runPython(script: string, args: readonly string[]): Promise<unknown> {
  const environment = {
    ...process.env,
    HF_HUB_OFFLINE: "1",
    TRANSFORMERS_OFFLINE: "1",
    TOKENIZERS_PARALLELISM: "false",
  };
  const { stdout } = await run(python, [join(import.meta.dirname, script), ...args], {
    env: environment,
    maxBuffer: 1 << 26,
  });
  return JSON.parse(stdout.trim().split("\n").at(-1) ?? "null");
}
