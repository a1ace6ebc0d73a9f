/** Initial values that the parameter store does not know: uniform ones, from the counter-based stream so that they depend on the seed alone. */
import { philox, uniformFromBits } from "../../base/index.ts";
import type { Tensor } from "../../tensor/index.ts";

/** Fills with uniform numbers in [-bound, bound); gives the counter behind the blocks used. */
export function fillUniform(
  tensor: Tensor,
  { bound, seed, counter }: { bound: number; seed: number; counter: number },
): number {
  const values = new Float64Array(tensor.numElements);
  const block = new Uint32Array(4);
  for (let i = 0; i < values.length; i++) {
    if (i % 4 === 0) philox(seed, counter + i / 4, block);
    values[i] = bound * (2 * uniformFromBits(block[i % 4]) - 1);
  }
  tensor.set(values);
  return counter + Math.ceil(values.length / 4);
}

/** Fills with normal numbers; gives the counter behind the blocks used. */
export function fillNormal(
  tensor: Tensor,
  { std, seed, counter }: { std: number; seed: number; counter: number },
): number {
  const { numElements } = tensor;
  tensor.device.run("randomNormal", { y: tensor, numElements, seed, counter, mean: 0, std });
  return counter + Math.ceil(numElements / 4);
}
