/** Adapters chosen row by row. Conventions: ../ops.ts. */
import type { OpSpec } from "./spec.ts";

export const rowAdapterOps = {
  adapterLinear: {
    summary:
      "y[row] += scales[s] * (x[row] a[s]^T) b[s]^T with s = slots[row]; a negative slot leaves its row as it is. x (N, C) and y (N, F) have row strides; " +
      "a (numSlots, R, C), b (numSlots, F, R), of x's dtype; scales f32 (numSlots); slots i32 (N), in any order. x[row] a[s]^T stays in f32.",
    tensors: { x: "read", a: "read", b: "read", scales: "read", slots: "read", y: "update" },
    integers: ["numRows", "widthIn", "widthOut", "rank", "numSlots", "xRowStride", "yRowStride"],
    floats: [],
  },
} as const satisfies Record<string, OpSpec>;
