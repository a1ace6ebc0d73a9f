/**
 * How long `nautilus --help` takes, beside an empty program of the same Node. Limit: 200 ms.
 *
 *     node bench/startup.ts [--runs 15]
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values } = parseArgs({ options: { runs: { type: "string", default: "15" } } });
const launcher = fileURLToPath(new URL("../bin/nautilus.js", import.meta.url));
const limitMs = 200;

/** Milliseconds of each of some runs, sorted; one before them fills the caches. */
function measure(args: readonly string[]): number[] {
  const once = (): number => {
    const startMs = performance.now();
    const { status } = spawnSync(process.execPath, args);
    if (status !== 0) throw new Error(`node ${args.join(" ")} ended with ${status}`);
    return performance.now() - startMs;
  };
  once();
  return Array.from({ length: Number(values.runs) }, once).sort((a, b) => a - b);
}

const show = (name: string, sorted: readonly number[]): void => {
  const [least, median, most] = [sorted[0], sorted[sorted.length >> 1], sorted[sorted.length - 1]];
  console.log(
    `${name.padEnd(22)} median ${median.toFixed(0)} ms  (${least.toFixed(0)} to ${most.toFixed(0)})  ${((100 * median) / limitMs).toFixed(0)} % of ${limitMs} ms`,
  );
};
show("node -e 0", measure(["-e", "0"]));
for (const args of [["--help"], ["--version"], ["pull", "--help"], ["train", "--help"]])
  show(`nautilus ${args.join(" ")}`, measure([launcher, ...args]));
