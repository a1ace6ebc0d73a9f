/** What --force may take away. */
import { rmSync } from "node:fs";
import { relative, resolve } from "node:path";
import { ConfigError } from "../../base/index.ts";

/** Removes a verb's own output folder. Throws ConfigError rather than take away the folder one stands in, or one above it. */
export function removeOutputFolder(component: string, path: string): void {
  if (!relative(resolve(path), process.cwd()).startsWith("..")) {
    throw new ConfigError(component, `expected an output folder of its own to replace, got ${path}`, {
      hint: "the working folder is in it",
    });
  }
  rmSync(path, { recursive: true, force: true });
}
