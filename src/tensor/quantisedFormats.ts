/** A quantised weight of any format, and what it takes. */
import { dtypeBytes, invariant } from "../base/index.ts";
import type { Shape } from "../base/index.ts";
import type { Device, QuantisedFormat } from "../device/index.ts";
import { groupParts, GroupQuantisedWeight } from "./groupQuantised.ts";
import type { GroupOptions } from "./groupQuantised.ts";
import type { QuantisedWeight } from "./quantised.ts";
import { rowParts, RowQuantisedWeight } from "./rowQuantised.ts";

/** Groups are the formats' of groups; fp8 has whole rows. */
export interface QuantisedOptions extends GroupOptions {
  format: QuantisedFormat;
}

/** Uninitialised: `assign` fills it. Throws OutOfMemoryError, ShapeError. */
export function quantisedWeight(
  device: Device,
  shape: Shape,
  { format, ...groups }: QuantisedOptions,
): QuantisedWeight {
  if (format !== "fp8") return new GroupQuantisedWeight(device, shape, { format, ...groups });
  const { groupSize = Infinity, isDouble = false } = groups;
  invariant(groupSize >= shape[1] && !isDouble, "a scale for each row of fp8");
  return new RowQuantisedWeight(device, shape);
}

/** A weight's bytes on the device, by arithmetic. */
export function quantisedBytes(shape: Shape, { format, ...groups }: QuantisedOptions): number {
  const parts = format === "fp8" ? rowParts(shape) : groupParts(shape, { format, ...groups });
  return parts.reduce((total, { count, dtype }) => total + count * dtypeBytes(dtype), 0);
}
