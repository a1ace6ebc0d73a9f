/**
 * What a backend does not have, with the reason. Anything else that the cases ask for must be there, and a gap that has been closed
 * must be taken out. docs/ops.md is written from this list: run `node scripts/generate-ops-doc.ts` after a change.
 */
import type { DeviceKind, OpName } from "../../src/device/index.ts";

interface Gap {
  readonly ops: readonly OpName[];
  /** The cases it is about; all of the operator without. */
  readonly label?: RegExp;
  readonly reason: string;
}

const gaps: Readonly<Record<DeviceKind, readonly Gap[]>> = {
  reference: [],
  cpu: [],
  cuda: [],
};

/** The gap that a case falls into. `isWithinOp`: the operator's dtypes are supported, but not this case of it. */
export function gapOf(
  kind: DeviceKind,
  { op, label }: { op: OpName; label: string },
): { reason: string; isWithinOp: boolean } | undefined {
  const gap = gaps[kind].find(
    (gap) => gap.ops.includes(op) && (gap.label === undefined || gap.label.test(label)),
  );
  return gap && { reason: gap.reason, isWithinOp: gap.label !== undefined };
}
