/** The reference backend. */
import type { Device } from "../contract.ts";
import { ReferenceDevice } from "./device.ts";

export function createReferenceDevice(): Device {
  return new ReferenceDevice();
}
