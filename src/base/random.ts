/**
 * Counter-based random numbers: Philox 4x32 with 10 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
 * SC 2011). A value depends on (seed, counter) alone, so that any element of a stream can be made on any backend, in any
 * order, with the same bits; a position in the stream is its whole state.
 */
const multiplier0 = 0xd2511f53;
const multiplier1 = 0xcd9e8d57;
const weyl0 = 0x9e3779b9;
const weyl1 = 0xbb67ae85;
const rounds = 10;

/** The high 32 bits of a product of two unsigned 32-bit numbers. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + Math.floor(middle / 65536) + Math.floor(carry / 65536)) >>> 0;
}

/** Four unsigned 32-bit numbers for `counter` (up to 2^53) under `seed` (up to 2^53), written into `out`. */
export function philox(seed: number, counter: number, out: Uint32Array = new Uint32Array(4)): Uint32Array {
  let key0 = seed >>> 0;
  let key1 = Math.floor(seed / 2 ** 32) >>> 0;
  let c0 = counter >>> 0;
  let c1 = Math.floor(counter / 2 ** 32) >>> 0;
  let c2 = 0;
  let c3 = 0;
  for (let round = 0; round < rounds; round++) {
    const high0 = multiplyHigh(multiplier0, c0);
    const low0 = Math.imul(multiplier0, c0) >>> 0;
    const high1 = multiplyHigh(multiplier1, c2);
    const low1 = Math.imul(multiplier1, c2) >>> 0;
    c0 = (high1 ^ c1 ^ key0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ key1) >>> 0;
    c3 = low0;
    key0 = (key0 + weyl0) >>> 0;
    key1 = (key1 + weyl1) >>> 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
  return out;
}

/** A number in [0, 1) with 24 random bits, exact in float32: the same on every backend. */
export function uniformFromBits(bits: number): number {
  return (bits >>> 8) * 2 ** -24;
}

/** A stream of random numbers whose state is `{ seed, counter }`. */
export class RandomStream {
  readonly seed: number;
  counter: number;
  readonly #block = new Uint32Array(4);

  constructor(seed: number, counter = 0) {
    this.seed = seed;
    this.counter = counter;
  }

  /** An unsigned 32-bit number. */
  nextUint32(): number {
    return philox(this.seed, this.counter++, this.#block)[0];
  }

  /** A number in [0, 1) with 53 random bits. */
  nextFloat(): number {
    philox(this.seed, this.counter++, this.#block);
    return ((this.#block[0] >>> 5) * 2 ** 26 + (this.#block[1] >>> 6)) * 2 ** -53;
  }

  /** An integer in [0, limit). */
  nextInt(limit: number): number {
    return Math.floor(this.nextFloat() * limit);
  }

  /** A standard normal number (Box-Muller). */
  nextNormal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.nextFloat()));
    return radius * Math.cos(2 * Math.PI * this.nextFloat());
  }
}
