/**
 * Runs Python code that a model wrote: in a process of its own with an empty environment, in an empty folder that goes afterwards, with
 * limits of time, memory, file size and processes, and never unless the user said so (`--run-code`). This is damage control, not a
 * sandbox: run it where nothing of value can be reached.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ConfigError } from "../../base/index.ts";

const timeLimitMs = 5000;
/** Runs before the code: limits that it cannot raise again, and no output that could fill memory. */
const guard = [
  "import resource, sys",
  "def limit(what, value): resource.setrlimit(what, (value, value))",
  "limit(resource.RLIMIT_AS, 1 << 30)",
  "limit(resource.RLIMIT_CPU, 5)",
  "limit(resource.RLIMIT_FSIZE, 1 << 20)",
  "limit(resource.RLIMIT_CORE, 0)",
  "limit(resource.RLIMIT_NPROC, 0)",
  "exec(compile(sys.stdin.read(), '<answer>', 'exec'), {'__name__': '__main__'})",
].join("\n");

/** 1 when the program ends well within its limits, else 0. Throws ConfigError without Python. */
export function runPython(program: string, python = "python3"): number {
  const folder = mkdtempSync(join(tmpdir(), "nautilus-code-"));
  try {
    const { status, error } = spawnSync(python, ["-I", "-S", "-c", guard], {
      cwd: folder,
      input: program,
      env: { PATH: process.env["PATH"] ?? "" },
      timeout: timeLimitMs,
      killSignal: "SIGKILL",
      stdio: ["pipe", "ignore", "ignore"],
    });
    if (error !== undefined && "code" in error && error.code === "ENOENT") {
      throw new ConfigError("eval", `expected Python as '${python}' to run generated code, got none`, {
        hint: "install Python 3",
      });
    }
    return status === 0 ? 1 : 0;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
