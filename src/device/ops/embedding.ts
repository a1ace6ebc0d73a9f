/** Rows of a table by token, rows of any matrix by index, and their gradients. Conventions: ../ops.ts. */
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
  sumRows: {
    summary:
      "y[row] = the sum of x[sources[i]] over starts[row] <= i < starts[row + 1], added up in that order in f32 before the one rounding; zeros where there are none. " +
      "starts i32 (N + 1), from 0 on, never falling; sources i32 (starts[N]), below numSources; x (numSources, C), y (N, C), of one dtype. The gradient of a gather of rows.",
    tensors: { x: "read", starts: "read", sources: "read", y: "write" },
    integers: ["numRows", "width", "numSources"],
    floats: [],
  },
} as const satisfies Record<string, OpSpec>;
