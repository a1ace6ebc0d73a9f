/**
 * Double quantisation (QLoRA, section 3): scales of groups, less their mean, in 8 bits by groups of 256. The 8-bit values are the signed
 * dynamic map (Dettmers, "8-bit Approximations for Parallelism in Deep Learning", 2015): an exponent in unary, then a linear fraction.
 */
export const scaleGroupSize = 256;

const numExponents = 7;
let table: Float32Array | undefined;

/** The 256 values of the dynamic map, ascending: for exponent e from -6 to 0, the middles of 2^(e + 6) parts of [0.1, 1] times 10^e, both signs; 0; 1. */
export function scaleTable(): Float32Array {
  if (table !== undefined) return table;
  const values = [0, 1];
  for (let step = 0; step < numExponents; step++) {
    const numParts = 2 ** step;
    const bounds = Float32Array.from({ length: numParts + 1 }, (_, i) => 0.1 + (0.9 * i) / numParts);
    const power = 10 ** (step - numExponents + 1);
    for (let i = 0; i < numParts; i++) {
      const middle = power * Math.fround(Math.fround(bounds[i] + bounds[i + 1]) / 2);
      values.push(middle, -middle);
    }
  }
  table = Float32Array.from(values).sort();
  return table;
}

export interface QuantisedScales {
  /** u8, an index into `scaleTable` for each scale. */
  codes: Uint8Array<ArrayBuffer>;
  /** Largest magnitude of each 256. */
  outerScales: Float32Array;
  /** The mean, taken away before and added after. */
  offset: number;
}

export function quantiseScales(scales: Float32Array): QuantisedScales {
  const offset = Math.fround(scales.reduce((total, scale) => total + scale, 0) / Math.max(1, scales.length));
  const codes = new Uint8Array(scales.length);
  const outerScales = new Float32Array(Math.ceil(scales.length / scaleGroupSize));
  for (let group = 0; group < outerScales.length; group++) {
    const begin = group * scaleGroupSize;
    const rest = scales.subarray(begin, begin + scaleGroupSize).map((scale) => scale - offset);
    let peak = 0;
    for (const value of rest) peak = Math.max(peak, Math.abs(value));
    outerScales[group] = peak;
    const inverse = peak === 0 ? 0 : Math.fround(1 / peak);
    for (const [i, value] of rest.entries()) codes[begin + i] = nearest(Math.fround(value * inverse));
  }
  return { codes, outerScales, offset };
}

/** Index of the table's value nearest to x. */
function nearest(x: number): number {
  const values = scaleTable();
  let low = 0;
  let high = values.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x > Math.fround((values[middle] + values[middle + 1]) / 2)) low = middle + 1;
    else high = middle;
  }
  return low;
}
