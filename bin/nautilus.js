#!/usr/bin/env node
/**
 * Launcher of the command line. In a checkout it runs the TypeScript sources; in an installed package the build in dist/.
 * Where the system's Node is older than 24 it starts itself again on the Node that the dev dependency `node` brings.
 */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import module from "node:module";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";

// Kernels are compiled on the threads of libuv's pool, four where nothing is said. The pool reads this when it is first used.
process.env["UV_THREADPOOL_SIZE"] ??= String(Math.max(4, availableParallelism()));

const minimumMajor = 24;
const root = new URL("../", import.meta.url);
const path = (relative) => fileURLToPath(new URL(relative, root));

if (Number(process.versions.node.split(".")[0]) < minimumMajor) {
  const bundled = path("node_modules/node/bin/node");
  if (!existsSync(bundled)) {
    process.stderr.write(
      `[nautilus] expected Node ${minimumMajor} or newer, got ${process.versions.node} (install Node ${minimumMajor}, or run 'npm ci' in the checkout)\n`,
    );
    process.exit(2);
  }
  // Ctrl-C reaches the child through the terminal's process group; this process only waits for it.
  process.on("SIGINT", () => {});
  const child = spawn(bundled, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
    stdio: "inherit",
  });
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  child.on("exit", (code, signal) => process.exit(code ?? (signal === "SIGINT" ? 130 : 1)));
} else {
  module.enableCompileCache?.();
  const source = path("src/app/cli/main.ts");
  const isCheckout = existsSync(source) && !source.includes("/node_modules/");
  await import(
    isCheckout ? new URL("src/app/cli/main.ts", root).href : new URL("dist/app/cli/main.js", root).href
  );
}
