/** `nautilus eval compare`: two output folders, task by task. */
import { existsSync, globSync } from "node:fs";
import { basename, join } from "node:path";
import { DataError } from "../../../base/index.ts";
import { compareLogs, SampleLog } from "../../../eval/index.ts";

function logsOf(folder: string): string[] {
  const names = existsSync(join(folder, "samples"))
    ? globSync("*.jsonl", { cwd: join(folder, "samples") })
    : [];
  if (names.length > 0) return names.map((name) => basename(name, ".jsonl"));
  throw new DataError("eval", `expected the output of 'nautilus eval' at ${folder}, got no logs`, {
    hint: "run it with --output",
  });
}

export function compareCommand(first: string, second: string, { json }: { json?: boolean }): void {
  const others = new Set(logsOf(second));
  const tasks = logsOf(first)
    .filter((name) => others.has(name))
    .toSorted();
  if (tasks.length === 0) throw new DataError("eval", `expected a task that both runs have, got none`);
  const rows = tasks.flatMap((task) => {
    const [a, b] = [first, second].map((folder) =>
      new SampleLog(join(folder, "samples", `${task}.jsonl`)).read(),
    );
    return compareLogs(task, a, b);
  });
  if (json === true) {
    process.stdout.write(`${JSON.stringify(rows, undefined, 2)}\n`);
    return;
  }
  const number = (value: number): string => value.toFixed(4).padStart(8);
  process.stdout.write(
    `${"task and metric (samples)".padEnd(34)}    first   second   change        ±        p\n`,
  );
  for (const { task, metric, numSamples, first: a, second: b, difference, standardError, pValue } of rows) {
    const isClear = pValue < 0.05 ? " *" : "";
    process.stdout.write(
      `${`${task} ${metric.replace(/,none$/, "")} (${numSamples})`.padEnd(34)} ${number(a)} ${number(b)} ${number(difference)} ${number(standardError)} ${number(pValue)}${isClear}\n`,
    );
  }
  process.stdout.write(
    "* less than 1 in 20 by chance (McNemar's exact test, or a paired z-test for\n  graded metrics)\n",
  );
}
