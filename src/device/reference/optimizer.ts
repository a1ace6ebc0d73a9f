/** Reference: global norm, clipping and AdamW with every kind of state. */
import { fromBf16Bits, philox } from "../../base/index.ts";
import type { TensorArgument } from "../contract.ts";
import { read, write } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

const floatBits = new Float32Array(1);
const integerBits = new Uint32Array(floatBits.buffer);

/** `value` as bf16, rounded away from zero with the probability of what lies beyond the kept bits. */
function stochasticBf16(value: number, random16: number): number {
  floatBits[0] = value;
  if (!Number.isFinite(floatBits[0])) return value;
  return fromBf16Bits((integerBits[0] + random16) >>> 16);
}

export const optimizerKernels = {
  sumOfSquares: ({ x, accumulator, numElements }) => {
    const values = read(x, numElements);
    write(accumulator, [read(accumulator, 1)[0] + values.reduce((total, value) => total + value * value, 0)]);
  },

  clipCoefficient: ({ sumOfSquares, norm, coefficient, gradientScale, maxNorm, skipAboveNorm }) => {
    const length = gradientScale * Math.sqrt(read(sumOfSquares, 1)[0]);
    const isSkipped = !Number.isFinite(length) || (skipAboveNorm > 0 && length > skipAboveNorm);
    const factor = maxNorm === 0 ? 1 : Math.min(1, maxNorm / (length + 1e-6));
    write(norm, [length]);
    write(coefficient, [isSkipped ? Number.NaN : gradientScale * factor]);
  },

  adamw: (args) => {
    const { param, master, grad, m, v, coefficient, numElements, step, seed, counter, stochasticRounding } =
      args;
    const { learningRate, beta1, beta2, eps, weightDecay } = args;
    const factor = read(coefficient, 1)[0];
    if (!Number.isFinite(factor)) return;
    const gradients = read(grad, numElements);
    const first = read(m, numElements);
    const second = read(v, numElements);
    const weights = read(master ?? param, numElements);
    const isStochastic = (tensor: TensorArgument): boolean =>
      stochasticRounding === 1 && tensor.dtype === "bf16";
    const roundsParam = master === undefined && isStochastic(param);
    const words = new Uint32Array(4);
    for (let i = 0; i < numElements; i++) {
      const g = gradients[i] * factor;
      const nextM = beta1 * first[i] + (1 - beta1) * g;
      const nextV = beta2 * second[i] + (1 - beta2) * g * g;
      const mHat = nextM / (1 - beta1 ** step);
      const vHat = nextV / (1 - beta2 ** step);
      const next = weights[i] - learningRate * (mHat / (Math.sqrt(vHat) + eps) + weightDecay * weights[i]);
      if (stochasticRounding === 1) philox(seed, counter + i, words);
      weights[i] = roundsParam ? stochasticBf16(next, words[0] & 0xffff) : next;
      first[i] = isStochastic(m) ? stochasticBf16(nextM, words[1] & 0xffff) : nextM;
      second[i] = isStochastic(v) ? stochasticBf16(nextV, words[2] & 0xffff) : nextV;
    }
    write(m, first);
    write(v, second);
    if (master !== undefined) write(master, weights);
    write(param, master === undefined ? weights : read(master, numElements));
  },
} satisfies Partial<ReferenceKernels>;
