/**
 * Copies what the compiler leaves behind into dist/: kernel sources (.cu, .cuh, .cpp, .h) and protocol buffers (.proto), which are compiled on the user's
 * machine on first use and are looked for beside the modules that load them. Part of `npm run build`.
 */
import { cpSync, readdirSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" }).filter((path) =>
  /\.(cu|cuh|cpp|h|proto)$/.test(path),
);
for (const path of sources) cpSync(join(root, "src", path), join(root, "dist", path));
console.log(`${sources.length} sources copied to dist`);
