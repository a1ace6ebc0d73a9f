/** Activations, plain and gated, and their gradients. Conventions: ../ops.ts. */
import type { OpSpec } from "./spec.ts";

export const activationOps = {
  activationForward: {
    summary:
      "y[i] = f(x[i]); kind: 0 squared ReLU, 1 GELU (tanh form), 2 SiLU, 3 GELU (erf), 4 ReLU, 5 sigmoid, 6 tanh. y may be x.",
    tensors: { x: "read", y: "write" },
    integers: ["numElements", "kind"],
    floats: [],
  },
  activationBackward: {
    summary: "dx[i] = dy[i] * f'(x[i]); kinds as activationForward. dx may be dy.",
    tensors: { x: "read", dy: "read", dx: "write" },
    integers: ["numElements", "kind"],
    floats: [],
  },
  gatedActivationForward: {
    summary:
      "y[row, i] = f(x[row, i]) * x[row, width + i]; x (N, 2F), y (N, F), width = F; kinds as activationForward (2 makes SwiGLU).",
    tensors: { x: "read", y: "write" },
    integers: ["numRows", "width", "kind"],
    floats: [],
  },
  activationCodes: {
    summary:
      "codes u8 (N, F) and scales f32 (N) of quantiseRows for the rows that activationForward of x (N, F), or with gated 1 gatedActivationForward of x (N, 2F), would store in x's dtype; width = F.",
    tensors: { x: "read", codes: "write", scales: "write" },
    integers: ["numRows", "width", "kind", "gated"],
    floats: [],
  },
  gatedActivationBackward: {
    summary: "dx (N, 2F) from dy (N, F) and x (N, 2F); dx may be x.",
    tensors: { x: "read", dy: "read", dx: "write" },
    integers: ["numRows", "width", "kind"],
    floats: [],
  },
} as const satisfies Record<string, OpSpec>;

/** The kinds of activationForward, by the names configurations use. */
export const activationKinds = {
  "squared-relu": 0,
  "gelu-tanh": 1,
  silu: 2,
  "gelu-erf": 3,
  relu: 4,
  sigmoid: 5,
  tanh: 6,
} as const;
export type Activation = keyof typeof activationKinds;
