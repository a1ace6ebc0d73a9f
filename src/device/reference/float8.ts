/**
 * E4M3: a sign, four bits of exponent (bias 7) and three of fraction in a byte, no infinities; the largest number is 448 (Micikevicius et
 * al., "FP8 formats for deep learning", 2022). Codes 0x7f and 0xff are NaN.
 */

/** The largest number. */
export const e4m3Largest = 448;
/** What every NaN becomes. */
const e4m3NaN = 0x7f;
const leastExponent = -6;
const fractionSteps = 8;

/** The nearest code, a tie to the even one; what is larger than 448 becomes 448; a NaN becomes 0x7f whatever its sign. */
export function e4m3CodeOf(value: number): number {
  if (Number.isNaN(value)) return e4m3NaN;
  const sign = value < 0 || Object.is(value, -0) ? 0x80 : 0;
  const magnitude = Math.min(Math.abs(value), e4m3Largest);
  const exponent = magnitude === 0 ? leastExponent : Math.max(leastExponent, exponentOf(magnitude));
  // Eighths of the power of two below it, which count on into the next one: 8 to 16, or 0 to 8 below the normal numbers.
  const steps = roundEven(magnitude * 2 ** -exponent * fractionSteps);
  return sign | ((exponent - leastExponent) * fractionSteps + steps);
}

/** The number that a code is. */
export function e4m3ValueOf(code: number): number {
  const magnitude = code & 0x7f;
  if (magnitude === e4m3NaN) return Number.NaN;
  const sign = (code & 0x80) === 0 ? 1 : -1;
  const [field, fraction] = [magnitude >> 3, magnitude & 7];
  const steps = field === 0 ? fraction : fraction + fractionSteps;
  return sign * steps * 2 ** (Math.max(1, field) - 1 + leastExponent - 3);
}

/** The exponent of the power of two at or below `magnitude`, for numbers of at least 2^-40. */
function exponentOf(magnitude: number): number {
  const exponent = Math.floor(Math.log2(magnitude));
  // The logarithm is rounded: just below a power of two it may be that power's.
  return 2 ** exponent > magnitude ? exponent - 1 : exponent;
}

/** To nearest, a tie to even. */
export function roundEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Of f32. */
const leastNormal = 2 ** -126;

/** A row as numbers of 8 bits, as the operator quantiseRows says: peaks ignore NaN, which its own code keeps. */
export function quantiseE4m3(values: Float64Array): { scale: number; codes: number[] } {
  const { fround } = Math;
  const peak = values.reduce((most, value) => (Math.abs(value) > most ? Math.abs(value) : most), 0);
  const scale = fround(peak / e4m3Largest);
  const isZero = scale < leastNormal;
  const inverse = isZero ? 0 : fround(e4m3Largest / peak);
  return {
    scale: isZero ? 0 : scale,
    codes: Array.from(values, (value) => e4m3CodeOf(fround(value * inverse))),
  };
}
