/** What --force may take away. */
import { existsSync, realpathSync, rmSync } from "node:fs";
import { isAbsolute, relative, resolve, sep } from "node:path";
import { ConfigError } from "../../base/index.ts";

/** Throws ConfigError where replacing `path` would take away what a verb reads: `needed` by what it is called. */
export function expectNothingNeededIn(
  component: string,
  path: string,
  needed: Readonly<Record<string, string>>,
): void {
  for (const [name, place] of Object.entries(needed)) {
    if (!isWithin(path, place)) continue;
    throw new ConfigError(component, `expected an output folder of its own to replace, got ${path}`, {
      hint: `the ${name} is in it`,
    });
  }
}

/** Whether `place` is `folder`, or in it, whatever links lead there. */
function isWithin(folder: string, place: string): boolean {
  const [outer, inner] = [folder, place].map((path) =>
    existsSync(path) ? realpathSync(path) : resolve(path),
  );
  const way = relative(outer, inner);
  return way !== ".." && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}

/** Removes a verb's own output folder. Throws ConfigError rather than take away the folder one stands in, or one above it. */
export function removeOutputFolder(component: string, path: string): void {
  expectNothingNeededIn(component, path, { "working folder": process.cwd() });
  rmSync(path, { recursive: true, force: true });
}
