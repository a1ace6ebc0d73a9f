/**
 * Adapters chosen row by row, in two steps: the first needs x alone, so that it may come before the frozen product of the same x and
 * hide behind it. Conventions: ../ops.ts.
 */
import type { OpSpec } from "./spec.ts";

export const rowAdapterOps = {
  adapterDown: {
    summary:
      "low[row] = x[row] a[s]^T with s = slots[row]; a negative slot leaves its row as it is. x (N, C) has a row stride; a (numSlots, R, C), of x's dtype; " +
      "slots i32 (N), in any order; low f32 (N, R). A row's result does not hang on the other rows.",
    tensors: { x: "read", a: "read", slots: "read", low: "update" },
    integers: ["numRows", "width", "rank", "numSlots", "xRowStride"],
    floats: [],
  },
  adapterUp: {
    summary:
      "y[row, j] += scales[s, p] * (low[row, p] . b[s, j]) with s = slots[row] and p the part of output j: 0 below secondStart, 1 below thirdStart, else 2; a negative slot leaves its " +
      "row as it is. low f32 (N, numParts, R); b (numSlots, F, R); scales f32 (numSlots, numParts); slots i32 (N), in any order; y (N, F) has a row stride. numParts is 1 to 3; parts " +
      "beyond it start at F. A row's result does not hang on the other rows.",
    tensors: { low: "read", b: "read", scales: "read", slots: "read", y: "update" },
    integers: ["numRows", "width", "rank", "numParts", "secondStart", "thirdStart", "numSlots", "yRowStride"],
    floats: [],
  },
} as const satisfies Record<string, OpSpec>;
