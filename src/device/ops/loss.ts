/** The loss over a vocabulary. Conventions: ../ops.ts. */
import type { OpSpec } from "./spec.ts";

export const lossOps = {
  crossEntropy: {
    summary:
      "losses[row] = logSumExp(logits[row]) - logits[row, targets[row]], 0 where targets[row] is ignoreIndex. writeGradient = 1 replaces logits[row] by " +
      "(softmax - onehot) * gradientScale * rowScales[row] (1 where rowScales is null), zeros for ignored rows. logits (N, V); targets i32 (N); " +
      "rowScales, losses f32 (N).",
    tensors: { logits: "update", targets: "read", rowScales: "read?", losses: "write" },
    integers: ["numRows", "vocabSize", "ignoreIndex", "writeGradient"],
    floats: ["gradientScale"],
  },
} as const satisfies Record<string, OpSpec>;
