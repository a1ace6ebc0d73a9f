/** The matrix product. Conventions: ../ops.ts. */
import type { OpSpec } from "./spec.ts";

export const matmulOps = {
  matmul: {
    summary:
      "c = alpha * op(a) op(b) + beta * c + bias; op(a) (m, k), op(b) (k, n), c (m, n), bias (n). transposeA: a is stored (k, m); " +
      "transposeB: b is stored (n, k). lda, ldb, ldc are row strides in elements. a and b share a dtype; c may be f32 beside bf16. " +
      "With beta = 0, c is not read. k = 0 gives beta * c + bias.",
    tensors: { a: "read", b: "read", c: "update", bias: "read?" },
    integers: ["m", "n", "k", "lda", "ldb", "ldc", "transposeA", "transposeB"],
    floats: ["alpha", "beta"],
  },
} as const satisfies Record<string, OpSpec>;
