/** Reference: pointwise activations and their derivatives. */
import { invariant } from "../../base/index.ts";
import { read, write } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

interface PointwiseFunction {
  readonly value: (x: number) => number;
  readonly derivative: (x: number) => number;
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const tanhScale = Math.sqrt(2 / Math.PI);
const tanhCubic = 0.044715;
const tanhArgument = (x: number): number => tanhScale * (x + tanhCubic * x ** 3);

/** The error function, by its series near zero and by the continued fraction of its complement far out; exact to float64 rounding. */
function erf(x: number): number {
  const magnitude = Math.abs(x);
  if (magnitude > 6) return Math.sign(x);
  if (magnitude < 2.5) {
    let term = magnitude;
    let total = magnitude;
    for (let n = 1; Math.abs(term) > 1e-18 * total; n++) {
      term *= (-magnitude * magnitude) / n;
      total += term / (2 * n + 1);
      if (term === 0) break;
    }
    return (Math.sign(x) * 2 * total) / Math.sqrt(Math.PI);
  }
  let fraction = magnitude;
  for (let n = 60; n >= 1; n--) fraction = magnitude + n / 2 / fraction;
  return Math.sign(x) * (1 - Math.exp(-magnitude * magnitude) / (Math.sqrt(Math.PI) * fraction));
}

/** By the kinds of the operator table. */
const functions: readonly PointwiseFunction[] = [
  { value: (x) => Math.max(0, x) ** 2, derivative: (x) => 2 * Math.max(0, x) },
  {
    value: (x) => 0.5 * x * (1 + Math.tanh(tanhArgument(x))),
    derivative: (x) => {
      const t = Math.tanh(tanhArgument(x));
      return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * tanhScale * (1 + 3 * tanhCubic * x * x);
    },
  },
  { value: (x) => x * sigmoid(x), derivative: (x) => sigmoid(x) * (1 + x * (1 - sigmoid(x))) },
  {
    value: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
    derivative: (x) =>
      0.5 * (1 + erf(x / Math.SQRT2)) + (x * Math.exp(-0.5 * x * x)) / Math.sqrt(2 * Math.PI),
  },
  { value: (x) => (x < 0 ? 0 : x), derivative: (x) => (x > 0 ? 1 : 0) },
];

function functionOf(kind: number): PointwiseFunction {
  const found = functions.at(kind);
  invariant(kind >= 0 && found !== undefined, `activation kind ${kind} of the operator table`);
  return found;
}

export const activationKernels = {
  activationForward: ({ x, y, numElements, kind }) => {
    const { value } = functionOf(kind);
    write(y, read(x, numElements).map(value));
  },

  activationBackward: ({ x, dy, dx, numElements, kind }) => {
    const { derivative } = functionOf(kind);
    const inputs = read(x, numElements);
    write(
      dx,
      read(dy, numElements).map((gradient, i) => gradient * derivative(inputs[i])),
    );
  },

  gatedActivationForward: ({ x, y, numRows, width, kind }) => {
    const { value } = functionOf(kind);
    const inputs = read(x, numRows * 2 * width);
    const out = new Float64Array(numRows * width);
    for (let row = 0; row < numRows; row++) {
      for (let i = 0; i < width; i++) {
        out[row * width + i] = value(inputs[row * 2 * width + i]) * inputs[row * 2 * width + width + i];
      }
    }
    write(y, out);
  },

  gatedActivationBackward: ({ x, dy, dx, numRows, width, kind }) => {
    const { value, derivative } = functionOf(kind);
    const inputs = read(x, numRows * 2 * width);
    const gradients = read(dy, numRows * width);
    const out = new Float64Array(numRows * 2 * width);
    for (let row = 0; row < numRows; row++) {
      for (let i = 0; i < width; i++) {
        const gate = row * 2 * width + i;
        out[gate] = gradients[row * width + i] * derivative(inputs[gate]) * inputs[gate + width];
        out[gate + width] = gradients[row * width + i] * value(inputs[gate]);
      }
    }
    write(dx, out);
  },
} satisfies Partial<ReferenceKernels>;
