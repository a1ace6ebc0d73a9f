/** The conformance cases as tests: one for each operator, which names every case that fails. */
import { afterAll, describe, expect, it } from "vitest";
import { messageOf, NautilusError } from "../../src/base/index.ts";
import { openDevice, opNames, type Device, type DeviceKind } from "../../src/device/index.ts";
import { numElementsOf } from "./case.ts";
import { casesOf } from "./cases/index.ts";
import { runCase } from "./runner.ts";

/** The device, or why there is none. Only a GPU may be missing. */
async function openOrReason(kind: DeviceKind): Promise<Device | string> {
  try {
    return await openDevice({ kind, deterministic: true });
  } catch (error) {
    if (kind === "cuda" && error instanceof NautilusError) return messageOf(error);
    throw error;
  }
}

/**
 * Skips, with the reason, where the device is missing or has a declared gap. Cases whose tensors have more than `maxElements` elements
 * in all are left out.
 */
export async function describeConformance(
  kind: DeviceKind,
  { maxElements = Infinity }: { maxElements?: number } = {},
): Promise<void> {
  const device = await openOrReason(kind);
  describe(`conformance of ${kind}`, () => {
    if (typeof device === "string") {
      it("has a device", (test) => test.skip(device));
      return;
    }
    afterAll(() => device.dispose());

    it.for(opNames)("%s", (op, test) => {
      const cases = casesOf(op).filter((candidate) => numElementsOf(candidate.build()) <= maxElements);
      const results = cases.map((candidate) => runCase(device, candidate));
      const failures = results.filter(({ status }) => status === "failed");
      expect(failures.map(({ label, message }) => `${label}: ${message}`)).toEqual([]);
      expect(results.length).toBeGreaterThan(0);
      const skipped = results.filter(({ status }) => status === "skipped");
      if (skipped.length === results.length) test.skip(skipped[0].message);
    });
  });
}
