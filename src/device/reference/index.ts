/** The reference backend. Knows the contract and the operator table alone; device/open.ts loads it. */
import type { Device } from "../contract.ts";
import { ReferenceDevice } from "./device.ts";

/** A device in JavaScript memory; needs nothing native. */
export function createReferenceDevice(): Device {
  return new ReferenceDevice();
}
