/**
 * Sums as NumPy takes them (pairwise, eight running sums in blocks of up to 128), so that normalised weights have the bits
 * that Megatron's have and its greedy blending rule takes the same turns.
 */
export function numpySum(values: ArrayLike<number>, begin = 0, length = values.length): number {
  if (length < 8) {
    let sum = 0;
    for (let i = 0; i < length; i++) sum += values[begin + i];
    return sum;
  }
  if (length > 128) {
    const half = Math.floor(length / 2);
    const first = half - (half % 8);
    return numpySum(values, begin, first) + numpySum(values, begin + first, length - first);
  }
  const sums = Array.from({ length: 8 }, (_, lane) => values[begin + lane]);
  const whole = length - (length % 8);
  for (let i = 8; i < whole; i += 8) {
    for (let lane = 0; lane < 8; lane++) sums[lane] += values[begin + i + lane];
  }
  let sum = sums[0] + sums[1] + (sums[2] + sums[3]) + (sums[4] + sums[5] + (sums[6] + sums[7]));
  for (let i = whole; i < length; i++) sum += values[begin + i];
  return sum;
}

/** Weights that sum to one. */
export function normalizeWeights(weights: readonly number[]): number[] {
  const sum = numpySum(weights);
  return weights.map((weight) => weight / sum);
}
