/**
 * Reference: global gradient norm, clipping, and AdamW (Loshchilov and Hutter, 2019) with every kind of state, stochastic rounding of
 * bf16 (after Gupta et al., 2015) included.
 */
import { fromBf16Bits, philox } from "../../base/index.ts";
import type { OpArguments, TensorArgument } from "../contract.ts";
import { read, readScalar, write } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

const floatBits = new Float32Array(1);
const integerBits = new Uint32Array(floatBits.buffer);

/**
 * A bf16 neighbour of `value`, rounded to f32 first: away from zero when the 16 bits that bf16 drops and `random16` carry. Infinity
 * and NaN stay.
 */
export function stochasticBf16(value: number, random16: number): number {
  floatBits[0] = value;
  if (!Number.isFinite(floatBits[0])) return value;
  return fromBf16Bits((integerBits[0] + random16) >>> 16);
}

function adamw(args: OpArguments<"adamw">): void {
  const { param, master, grad, m, v, numElements, step, seed, counter } = args;
  const { learningRate, beta1, beta2, eps, weightDecay } = args;
  const coefficient = readScalar(args.coefficient);
  if (!Number.isFinite(coefficient)) return;
  const gradients = read(grad, numElements);
  const firstMoments = read(m, numElements);
  const secondMoments = read(v, numElements);
  const weights = read(master ?? param, numElements);
  const isStochastic = (tensor: TensorArgument): boolean =>
    args.stochasticRounding === 1 && tensor.dtype === "bf16";
  const roundsParam = master === undefined && isStochastic(param);
  const words = new Uint32Array(4);
  for (let i = 0; i < numElements; i++) {
    const g = gradients[i] * coefficient;
    const firstMoment = beta1 * firstMoments[i] + (1 - beta1) * g;
    const secondMoment = beta2 * secondMoments[i] + (1 - beta2) * g * g;
    const mHat = firstMoment / (1 - beta1 ** step);
    const vHat = secondMoment / (1 - beta2 ** step);
    const weight = weights[i] - learningRate * (mHat / (Math.sqrt(vHat) + eps) + weightDecay * weights[i]);
    if (args.stochasticRounding === 1 && i % 4 === 0) philox(seed, counter + i / 4, words);
    const random = words[i % 4];
    weights[i] = roundsParam ? stochasticBf16(weight, random & 0xffff) : weight;
    firstMoments[i] = firstMoment;
    secondMoments[i] = isStochastic(v) ? stochasticBf16(secondMoment, random >>> 16) : secondMoment;
  }
  write(m, firstMoments);
  write(v, secondMoments);
  if (master !== undefined) write(master, weights);
  // The parameter is the stored master rounded again, so that a checkpoint of the master alone restores it.
  write(param, master === undefined ? weights : read(master, numElements));
}

export const optimizerKernels = {
  sumOfSquares: ({ x, accumulator, numElements }) => {
    let total = 0;
    for (const value of read(x, numElements)) total += value * value;
    write(accumulator, [readScalar(accumulator) + total]);
  },

  clipCoefficient: ({ sumOfSquares, norm, coefficient, gradientScale, maxNorm, skipAboveNorm }) => {
    const length = gradientScale * Math.sqrt(readScalar(sumOfSquares));
    write(norm, [length]);
    // Finite means finite in f32, as it is stored.
    const isSkipped = !Number.isFinite(readScalar(norm)) || (skipAboveNorm > 0 && length > skipAboveNorm);
    const factor = maxNorm === 0 ? 1 : Math.min(1, maxNorm / (length + 1e-6));
    write(coefficient, [isSkipped ? Number.NaN : gradientScale * factor]);
  },

  adamw,
} satisfies Partial<ReferenceKernels>;
