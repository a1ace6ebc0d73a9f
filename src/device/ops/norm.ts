/** Normalisation over rows, and its gradients. Conventions: ../ops.ts. */
import type { OpSpec } from "./spec.ts";

export const normOps = {
  layerNormForward: {
    summary:
      "s = x + addend (x alone where addend is null; rounded to sum's dtype first when sum is given and stored there); mean and variance of s over its row in two " +
      "passes; y = (s - mean) * rstd * (gain + gainOffset) + bias, rstd = 1 / sqrt(variance + eps). x, addend, sum, y (N, C); gain, bias (C); " +
      "mean, rstd f32 (N). y may be x. codes u8 (N, C) and scales f32 (N), given together: those of quantiseRows for y as it is stored.",
    tensors: {
      x: "read",
      addend: "read?",
      gain: "read",
      bias: "read?",
      sum: "write?",
      y: "write",
      mean: "write?",
      rstd: "write?",
      codes: "write?",
      scales: "write?",
    },
    integers: ["numRows", "width"],
    floats: ["eps", "gainOffset"],
  },
  layerNormBackward: {
    summary:
      "dx = gradient of layerNormForward with respect to s, plus dsum where given; dgain[c] += sum dy * (s - mean) * rstd; " +
      "dbias[c] += sum dy. x is s of the forward pass. dx may be dy or dsum.",
    tensors: {
      dy: "read",
      x: "read",
      gain: "read",
      mean: "read",
      rstd: "read",
      dsum: "read?",
      dx: "write",
      dgain: "update?",
      dbias: "update?",
    },
    integers: ["numRows", "width"],
    floats: ["gainOffset"],
  },
  rmsNormForward: {
    summary:
      "As layerNormForward without mean and bias: y = s * rstd * (gain + gainOffset), rstd = 1 / sqrt(mean of s^2 + eps).",
    tensors: {
      x: "read",
      addend: "read?",
      gain: "read",
      sum: "write?",
      y: "write",
      rstd: "write?",
      codes: "write?",
      scales: "write?",
    },
    integers: ["numRows", "width"],
    floats: ["eps", "gainOffset"],
  },
  rmsNormBackward: {
    summary:
      "dx = gradient of rmsNormForward with respect to s, plus dsum where given; dgain[c] += sum dy * s * rstd.",
    tensors: {
      dy: "read",
      x: "read",
      gain: "read",
      rstd: "read",
      dsum: "read?",
      dx: "write",
      dgain: "update?",
    },
    integers: ["numRows", "width"],
    floats: ["gainOffset"],
  },
} as const satisfies Record<string, OpSpec>;
