/** Gradient norms and the optimizer. Conventions: ../ops.ts. */
import type { OpSpec } from "./spec.ts";

export const optimizerOps = {
  sumOfSquares: {
    summary: "accumulator[0] += sum of x[i]^2; accumulator is f64 (1).",
    tensors: { x: "read", accumulator: "update" },
    integers: ["numElements"],
    floats: [],
  },
  clipCoefficient: {
    summary:
      "norm = gradientScale * sqrt(sumOfSquares[0]) (f64 (1) in, f32 (1) out); coefficient = gradientScale * min(1, maxNorm / (norm + 1e-6)) (f32 (1)), " +
      "gradientScale alone with maxNorm = 0; NaN where norm is not finite, or above skipAboveNorm when that is > 0.",
    tensors: { sumOfSquares: "read", norm: "write", coefficient: "write" },
    integers: [],
    floats: ["gradientScale", "maxNorm", "skipAboveNorm"],
  },
  adamw: {
    summary:
      "Nothing at all when coefficient[0] is not finite. g = grad * coefficient[0]; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; " +
      "w = w - learningRate * (mHat / (sqrt(vHat) + eps) + weightDecay * w), mHat = m / (1 - beta1^step), vHat = v / (1 - beta2^step), step from 1. w is master where given " +
      "(param = master rounded to nearest), else param. stochasticRounding = 1: bf16 param without master, and bf16 v, are rounded up with the probability of their remainder, " +
      "from the low (param) and the high (v) 16 bits of word i mod 4 of Philox block (seed, counter + floor(i / 4)); bf16 m is rounded to nearest. m, v f32 or bf16; grad f32 or bf16; master f32.",
    tensors: {
      param: "update",
      master: "update?",
      grad: "read",
      m: "update",
      v: "update",
      coefficient: "read",
    },
    integers: ["numElements", "step", "seed", "counter", "stochasticRounding"],
    floats: ["learningRate", "beta1", "beta2", "eps", "weightDecay"],
  },
} as const satisfies Record<string, OpSpec>;
