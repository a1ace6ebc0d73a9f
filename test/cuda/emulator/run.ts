/**
 * The conformance cases on the emulated CUDA kernels: `node test/cuda/emulator/run.ts [--op rotary] [--case text] [--elements 100000]`.
 * One line for each case that fails and one for each operator; exits 1 after a failure.
 */
import { parseArgs } from "node:util";
import { opNames } from "../../../src/device/index.ts";
import { numElementsOf } from "../../conformance/case.ts";
import { runCase } from "../../conformance/runner.ts";
import { emulatedCases } from "./cases.ts";
import { EmulatedCudaDevice } from "./device.ts";

const { values } = parseArgs({
  options: {
    op: { type: "string" },
    case: { type: "string", default: "" },
    elements: { type: "string", default: "60000" },
    verbose: { type: "boolean", default: false },
  },
});
const device = new EmulatedCudaDevice();
let numFailed = 0;
for (const op of opNames) {
  if (values.op !== undefined && values.op !== op) continue;
  const start = performance.now();
  const cases = emulatedCases(op).filter(
    (candidate) =>
      candidate.label.includes(values.case) && numElementsOf(candidate.build()) <= Number(values.elements),
  );
  let worst = 0;
  let failed = 0;
  for (const candidate of cases) {
    const begin = performance.now();
    const result = runCase(device, candidate);
    if (result.status === "failed") {
      failed++;
      process.stdout.write(`FAILED ${op}: ${result.label}: ${result.message}\n`);
    } else worst = Math.max(worst, result.worst);
    if (values.verbose)
      process.stdout.write(
        `${result.status} ${result.label} ${(100 * result.worst).toFixed(1)} % ${(performance.now() - begin).toFixed(0)} ms\n`,
      );
  }
  numFailed += failed;
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  process.stdout.write(
    `${op}: ${cases.length - failed} passed, ${failed} failed, worst ${(100 * worst).toFixed(1)} % of the allowance, ${seconds} s\n`,
  );
}
process.exitCode = numFailed === 0 ? 0 : 1;
