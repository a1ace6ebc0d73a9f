/** Opens a device for a test. Only a GPU may be missing: then the test is skipped, and says why. */
import type { TestContext } from "vitest";
import { messageOf, NautilusError } from "../src/base/index.ts";
import { openDevice } from "../src/device/index.ts";
import type { Device, DeviceKind } from "../src/device/index.ts";

export async function openOrSkip(kind: DeviceKind, test: TestContext): Promise<Device> {
  try {
    return await openDevice({ kind });
  } catch (error) {
    if (kind === "cuda" && error instanceof NautilusError) test.skip(messageOf(error));
    throw error;
  }
}
