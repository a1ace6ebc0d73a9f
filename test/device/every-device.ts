/** Every device there is, and the CUDA kernels on the emulator, for tests that hold all of them to the same bits. */
import type { TestContext } from "vitest";
import type { Device } from "../../src/device/index.ts";
import { EmulatedCudaDevice } from "../cuda/emulator/device.ts";
import { openOrSkip } from "../open-device.ts";

export const everyDevice = ["reference", "cpu", "cuda", "emulator"] as const;

/** The emulator, which takes minutes, where NAUTILUS_EMULATE asks for it. */
export async function openAnyOrSkip(kind: (typeof everyDevice)[number], test: TestContext): Promise<Device> {
  if (kind !== "emulator") return openOrSkip(kind, test);
  if (process.env["NAUTILUS_EMULATE"] === undefined)
    test.skip("emulating the CUDA kernels takes minutes: set NAUTILUS_EMULATE=1");
  return new EmulatedCudaDevice();
}
