/** The playground's files: those of the package, or in a checkout those that Vite makes of src/app/web on first use. */
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { messageOf, note } from "../../base/index.ts";
import { builtPages } from "../server/playground/pages.ts";

/** The folder of built pages; built first where its sources are newer. Without Vite, or when it fails, whatever is there is served. */
export async function ensurePages(): Promise<string> {
  const pages = builtPages();
  const sources = fileURLToPath(new URL("../web/", import.meta.url));
  const config = fileURLToPath(new URL("../../../vite.config.ts", import.meta.url));
  const isCheckout = existsSync(config) && existsSync(join(sources, "index.html"));
  if (!isCheckout || builtMs(pages) >= newestMs(sources)) return pages;
  try {
    note("Building the playground …");
    const { build } = await import("vite");
    await build({ configFile: config, logLevel: "warn" });
  } catch (error) {
    note(`The playground was not built: ${messageOf(error)}`);
  }
  return pages;
}

function builtMs(pages: string): number {
  const index = join(pages, "index.html");
  return existsSync(index) ? statSync(index).mtimeMs : -Infinity;
}

function newestMs(folder: string): number {
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" });
  return Math.max(...files.map((file) => statSync(join(folder, file)).mtimeMs));
}
