/** Rows of a table by token, and their gradient. Conventions: ../ops.ts. */
import type { OpSpec } from "./spec.ts";

export const embeddingOps = {
  embeddingForward: {
    summary:
      "y[row] = weight[tokens[row]]; tokens i32 (N), weight (V, C), y (N, C). Also gathers rows of any matrix.",
    tensors: { tokens: "read", weight: "read", y: "write" },
    integers: ["numRows", "width", "vocabSize"],
    floats: [],
  },
  embeddingBackward: {
    summary:
      "dweight[tokens[row]] += dy[row], summed per token in f32 before the one rounding to dweight's dtype.",
    tensors: { tokens: "read", dy: "read", dweight: "update" },
    integers: ["numRows", "width", "vocabSize"],
    floats: [],
  },
} as const satisfies Record<string, OpSpec>;
