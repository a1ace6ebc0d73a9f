/** Reference: pointwise activations by the kinds of the operator table, their derivatives, and the gated forms (Shazeer, 2020). */
import { invariant } from "../../base/index.ts";
import type { TensorArgument } from "../contract.ts";
import { activationKinds, type Activation } from "../ops.ts";
import { read, roundedTo, write } from "./memory.ts";
import { writeRowCodes } from "./quantise.ts";
import type { ReferenceKernels } from "./kernels.ts";

interface PointwiseFunction {
  readonly value: (x: number) => number;
  readonly derivative: (x: number) => number;
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** Of the tanh form of GELU (Hendrycks and Gimpel, 2016). */
const tanhScale = Math.sqrt(2 / Math.PI);
const tanhCubic = 0.044715;
const tanhArgument = (x: number): number => tanhScale * (x + tanhCubic * x ** 3);

/**
 * The complementary error function of x >= 0 to about 1e-15 of its value: its series near zero, the continued fraction farther out
 * (Abramowitz and Stegun, 7.1.5 and 7.1.14).
 */
function erfcOfPositive(x: number): number {
  if (x < 2) {
    let term = x;
    let total = x;
    for (let n = 1; Math.abs(term) > 1e-18; n++) {
      term *= (-x * x) / n;
      total += term / (2 * n + 1);
    }
    return 1 - (2 * total) / Math.sqrt(Math.PI);
  }
  let fraction = x;
  for (let n = 100; n >= 1; n--) fraction = x + n / 2 / fraction;
  return Math.exp(-x * x) / (Math.sqrt(Math.PI) * fraction);
}

/** The standard normal distribution function, without cancellation in its lower tail. */
function normalDistribution(x: number): number {
  if (Number.isNaN(x)) return x;
  const tail = 0.5 * erfcOfPositive(Math.abs(x) / Math.SQRT2);
  return x < 0 ? tail : 1 - tail;
}

const normalDensity = (x: number): number => Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);

const functions: Readonly<Record<Activation, PointwiseFunction>> = {
  "squared-relu": { value: (x) => Math.max(0, x) ** 2, derivative: (x) => 2 * Math.max(0, x) },
  "gelu-tanh": {
    value: (x) => 0.5 * x * (1 + Math.tanh(tanhArgument(x))),
    derivative: (x) => {
      const t = Math.tanh(tanhArgument(x));
      return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * tanhScale * (1 + 3 * tanhCubic * x * x);
    },
  },
  silu: { value: (x) => x * sigmoid(x), derivative: (x) => sigmoid(x) * (1 + x * (1 - sigmoid(x))) },
  "gelu-erf": {
    value: (x) => x * normalDistribution(x),
    derivative: (x) => normalDistribution(x) + x * normalDensity(x),
  },
  relu: { value: (x) => Math.max(0, x), derivative: (x) => (x > 0 ? 1 : 0) },
  sigmoid: { value: sigmoid, derivative: (x) => sigmoid(x) * sigmoid(-x) },
  tanh: { value: Math.tanh, derivative: (x) => 1 - Math.tanh(x) ** 2 },
};

function functionOf(kind: number): PointwiseFunction {
  const name = Object.entries(activationKinds).find(([, code]) => code === kind)?.[0];
  const found = Object.entries(functions).find(([key]) => key === name)?.[1];
  invariant(found !== undefined, `activation kind ${kind}`);
  return found;
}

/** f(x[:, :F]) * x[:, F:], (N, F). */
function gatedValues(
  x: TensorArgument,
  { numRows, width, kind }: { numRows: number; width: number; kind: number },
): Float64Array {
  const { value } = functionOf(kind);
  const inputs = read(x, numRows * 2 * width);
  const out = new Float64Array(numRows * width);
  for (let row = 0; row < numRows; row++) {
    for (let i = 0; i < width; i++) {
      const at = row * 2 * width + i;
      out[row * width + i] = value(inputs[at]) * inputs[at + width];
    }
  }
  return out;
}

export const activationKernels = {
  activationForward: ({ x, y, numElements, kind }) => {
    write(y, read(x, numElements).map(functionOf(kind).value));
  },

  activationBackward: ({ x, dy, dx, numElements, kind }) => {
    const { derivative } = functionOf(kind);
    const gradients = read(dy, numElements);
    const inputs = read(x, numElements);
    for (let i = 0; i < numElements; i++) gradients[i] *= derivative(inputs[i]);
    write(dx, gradients);
  },

  gatedActivationForward: ({ x, y, ...shape }) => {
    write(y, gatedValues(x, shape));
  },

  activationCodes: ({ x, codes, scales, gated, ...shape }) => {
    const { numRows, width, kind } = shape;
    const values = gated === 1 ? gatedValues(x, shape) : read(x, numRows * width).map(functionOf(kind).value);
    writeRowCodes(roundedTo(x.dtype, values), { codes, scales, numRows, width });
  },

  gatedActivationBackward: ({ x, dy, dx, numRows, width, kind }) => {
    const { value, derivative } = functionOf(kind);
    const inputs = read(x, numRows * 2 * width);
    const gradients = read(dy, numRows * width);
    const out = new Float64Array(numRows * 2 * width);
    for (let row = 0; row < numRows; row++) {
      for (let i = 0; i < width; i++) {
        const at = row * 2 * width + i;
        const gradient = gradients[row * width + i];
        out[at] = gradient * derivative(inputs[at]) * inputs[at + width];
        out[at + width] = gradient * value(inputs[at]);
      }
    }
    write(dx, out);
  },
} satisfies Partial<ReferenceKernels>;
