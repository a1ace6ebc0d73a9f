/**
 * Small arithmetic that launchers share: blocks of a grid, alignment, run-time type flags. Knows nothing of single operators.
 */
import { dtypeBytes } from "../../../base/index.ts";
import type { TensorArgument } from "../../contract.ts";
import type { OpName } from "../../ops.ts";
import { addressOf, floatDtype, type LaunchContext, type LaunchShape } from "../launcher.ts";

export function ceilDiv(a: number, b: number): number {
  return Math.ceil(a / b);
}

export function clamp(value: number, low: number, high: number): number {
  return Math.max(low, Math.min(high, value));
}

/** The multiple of a warp's 32 threads that covers `threads`. */
export function wholeWarps(threads: number): number {
  return 32 * Math.max(1, ceilDiv(threads, 32));
}

/** Elements of a 16-byte access. */
export function packSize(tensor: TensorArgument): number {
  return 16 / dtypeBytes(tensor.dtype);
}

/** Whether tensors and row strides (in elements) allow 16-byte accesses; absent tensors do. */
export function allowsPacks(
  tensors: readonly (TensorArgument | undefined)[],
  strides: readonly number[],
): boolean {
  return tensors.every((tensor) => {
    if (tensor === undefined) return true;
    const count = packSize(tensor);
    return addressOf(tensor) % 16 === 0 && strides.every((stride) => stride % count === 0);
  });
}

/** A bit per tensor, set where it is bf16 and clear where it is f32 or absent. Throws DtypeError. */
export function bf16Flags(op: OpName, tensors: Readonly<Record<number, TensorArgument | undefined>>): number {
  let flags = 0;
  for (const [bit, tensor] of Object.entries(tensors))
    if (tensor !== undefined && floatDtype(op, tensor) === "bf16") flags |= Number(bit);
  return flags;
}

/**
 * A launch whose kernel waits for its predecessor by itself (`begin_after_previous`), so that its blocks may be brought in while
 * that one ends; plain where the GPU cannot do it.
 */
export function overlapping(context: LaunchContext, shape: LaunchShape): LaunchShape {
  return context.computeCapability >= 90 ? { ...shape, overlapsPrevious: true } : shape;
}
