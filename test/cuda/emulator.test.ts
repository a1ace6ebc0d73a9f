/**
 * CUDA kernels against the reference without a GPU, through the emulator. Compiling them with g++ takes minutes, so this runs on request
 * only: NAUTILUS_EMULATE=1, or `node test/cuda/emulator/run.ts` for single operators.
 */
import { describe, expect, it } from "vitest";
import { opNames } from "../../src/device/index.ts";
import { numElementsOf } from "../conformance/case.ts";
import { runCase } from "../conformance/runner.ts";
import { emulatedCases } from "./emulator/cases.ts";
import { EmulatedCudaDevice } from "./emulator/device.ts";

const mostElements = 60_000;

describe("CUDA kernels on the emulator", () => {
  it.for(opNames)("%s", (op, test) => {
    if (process.env["NAUTILUS_EMULATE"] === undefined)
      return test.skip("emulating the CUDA kernels takes minutes: set NAUTILUS_EMULATE=1");
    using device = new EmulatedCudaDevice();
    const cases = emulatedCases(op).filter((candidate) => numElementsOf(candidate.build()) <= mostElements);
    const failures = cases
      .map((candidate) => runCase(device, candidate))
      .filter(({ status }) => status === "failed");
    expect(failures.map(({ label, message }) => `${label}: ${message}`)).toEqual([]);
  });
});
