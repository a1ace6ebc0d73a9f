/**
 * The conformance cases without a test runner, for machines where one is too much to carry:
 *
 *   node test/conformance/run.ts --device cuda [--op matmul] [--case "bf16 to f32"] [--mode test|support] [--fast] [--verbose]
 *
 * --fast leaves the deterministic mode, which is the default here. One line for each case that fails, one for each operator with its worst error, and last "N passed, N failed, N skipped". Exits 1
 * after a failure, 2 for wrong options.
 */
import { parseArgs } from "node:util";
import { ConfigError, NautilusError } from "../../src/base/index.ts";
import { openDevice, opNames, type DeviceKind, type OpName } from "../../src/device/index.ts";
import type { ConformanceCase } from "./case.ts";
import { allCases } from "./cases/index.ts";
import { missingSupport, runCase, type CaseResult } from "./runner.ts";

const kinds: readonly DeviceKind[] = ["reference", "cpu", "cuda"];

function oneOf<Choice extends string>(option: string, value: string, choices: readonly Choice[]): Choice {
  const found = choices.find((choice) => choice === value);
  if (found !== undefined) return found;
  throw new ConfigError(
    "conformance",
    `expected --${option} to be one of ${choices.join(", ")}, got '${value}'`,
  );
}

/** One line per operator, or per case with `isVerbose`. */
function report(op: OpName, results: readonly CaseResult[], isVerbose: boolean): void {
  for (const { label, status, message, worst } of results) {
    if (status === "failed") process.stdout.write(`FAILED ${op}: ${label}: ${message}\n`);
    else if (isVerbose) process.stdout.write(`${status} ${op}: ${label}: ${message || percent(worst)}\n`);
  }
  const count = (status: CaseResult["status"]): number =>
    results.filter((result) => result.status === status).length;
  const worst = Math.max(0, ...results.map((result) => result.worst));
  const skipped = new Set(results.flatMap(({ status, message }) => (status === "skipped" ? [message] : [])));
  const reasons = skipped.size === 0 ? "" : ` (skipped: ${[...skipped].join("; ")})`;
  process.stdout.write(
    `${op}: ${count("passed")} passed, ${count("failed")} failed, ${count("skipped")} skipped, worst error ${percent(worst)}${reasons}\n`,
  );
}

function percent(share: number): string {
  return Number.isFinite(share) ? `${(100 * share).toFixed(1)} % of the allowance` : "beyond any allowance";
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      device: { type: "string", default: "cpu" },
      op: { type: "string" },
      case: { type: "string", default: "" },
      mode: { type: "string", default: "test" },
      fast: { type: "boolean", default: false },
      verbose: { type: "boolean", default: false },
    },
  });
  const kind = oneOf("device", values.device, kinds);
  const mode = oneOf("mode", values.mode, ["test", "support"]);
  const op = values.op === undefined ? undefined : oneOf("op", values.op, opNames);
  using device = await openDevice({ kind, deterministic: !values.fast });
  process.stdout.write(`${device.kind}: ${device.description}\n`);

  const check = (candidate: ConformanceCase): CaseResult => {
    if (mode === "test") return runCase(device, candidate);
    const found = missingSupport(device, candidate, candidate.build());
    return {
      op: candidate.op,
      label: candidate.label,
      worst: 0,
      ...(found ?? { status: "passed", message: "" }),
    };
  };
  const all: CaseResult[] = [];
  for (const name of op === undefined ? opNames : [op]) {
    const cases = allCases().filter(
      (candidate) => candidate.op === name && candidate.label.includes(values.case),
    );
    const results = cases.map(check);
    if (results.length > 0) report(name, results, values.verbose);
    all.push(...results);
  }
  const count = (status: CaseResult["status"]): number =>
    all.filter((result) => result.status === status).length;
  process.stdout.write(`${count("passed")} passed, ${count("failed")} failed, ${count("skipped")} skipped\n`);
  return count("failed") === 0 ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof NautilusError)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = error.exitCode;
}
