/** The package's version. */
import { z } from "zod";
import { readJson } from "../base/index.ts";
import { fileURLToPath } from "node:url";

/** From package.json, which lies as far above src as above dist. */
export function packageVersion(): string {
  const path = fileURLToPath(new URL("../../package.json", import.meta.url));
  return z.object({ version: z.string() }).parse(readJson("nautilus", path)).version;
}
