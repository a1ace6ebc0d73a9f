/**
 * The Python that interop tests run real clients in: NAUTILUS_PYTHON, or the `python3` on the path. Tests ask for the modules that they
 * need, and are skipped with a printed reason where one is missing; requirements.txt beside this file lists them all.
 */
import { execFile, spawnSync } from "node:child_process";
import { note } from "../../src/base/index.ts";

export const python = process.env["NAUTILUS_PYTHON"] ?? "python3";

/** Whether all modules can be imported; a reason is printed where not. */
export function hasModules(...modules: string[]): boolean {
  const script = `import importlib.util as u, sys; print(",".join(m for m in sys.argv[1:] if u.find_spec(m) is None))`;
  const { status, stdout, error } = spawnSync(python, ["-c", script, ...modules], { encoding: "utf8" });
  const missing = status === 0 ? stdout.trim() : "Python itself";
  if (missing === "") return true;
  note(
    `skipped: ${python} has no ${missing}${error === undefined ? "" : ` (${error.message})`}; pip install -r test/interop/requirements.txt`,
  );
  return false;
}

/** Runs a script to its end beside this process, whose servers answer it meanwhile; its standard output. Throws with all it said. */
export function runPython(script: string, ...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(
      python,
      [script, ...args],
      { timeout: 120_000, maxBuffer: 64 * 1024 * 1024, env: { ...process.env, PYTHONWARNINGS: "ignore" } },
      (error, stdout, stderr) => {
        if (error === null) resolve(stdout);
        else reject(new Error(`${script} failed:\n${stdout}\n${stderr}`, { cause: error }));
      },
    );
  });
}
