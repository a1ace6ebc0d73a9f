/** One card for all tests of a file, which are skipped with the reason where there is none. */
import { afterAll, beforeEach } from "vitest";
import { messageOf } from "../../src/base/index.ts";
import { createCudaDevice, type CudaDevice } from "../../src/device/cuda/index.ts";

function open(): CudaDevice | string {
  try {
    return createCudaDevice();
  } catch (error) {
    return messageOf(error);
  }
}

/** Opens the card now; what it gives takes the card within a test. `unfitFor` says why a card that is there will not do. */
export function useCard(
  unfitFor: (device: CudaDevice) => string | undefined = () => undefined,
): () => CudaDevice {
  const opened = open();
  const reason = typeof opened === "string" ? opened : unfitFor(opened);
  beforeEach((context) => {
    if (reason !== undefined) context.skip(reason);
  });
  afterAll(() => {
    if (typeof opened !== "string") opened.dispose();
  });
  return () => {
    if (typeof opened === "string") throw new Error(opened);
    return opened;
  };
}
