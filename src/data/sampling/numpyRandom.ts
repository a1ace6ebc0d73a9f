/**
 * NumPy's legacy `RandomState(seed)`, as far as Megatron's index of samples draws from it: the Mersenne Twister MT19937
 * and the Fisher-Yates shuffle with bit-masked rejection. The same seed gives the same order as in Python, bit for bit.
 * Sources: Matsumoto and Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998), with the initialisation of 2002; NumPy's
 * frozen legacy generator (NEP 19).
 */
import { ConfigError } from "../../base/index.ts";

const stateLength = 624;
const middle = 397;

/** What a shuffle needs of an array. */
export interface Shufflable {
  readonly length: number;
  [index: number]: number;
}

export class NumpyRandomState {
  readonly #key = new Uint32Array(stateLength);
  #position = stateLength;

  /** `seed` is a whole number below 2^32. Throws ConfigError. */
  constructor(seed: number) {
    if (!Number.isInteger(seed) || seed < 0 || seed > 0xffffffff) {
      throw new ConfigError("data", `expected a seed between 0 and 4294967295, got ${seed}`);
    }
    let value = seed >>> 0;
    for (let position = 0; position < stateLength; position++) {
      this.#key[position] = value;
      value = (Math.imul(1812433253, value ^ (value >>> 30)) + position + 1) >>> 0;
    }
  }

  #refill(): void {
    const key = this.#key;
    for (let i = 0; i < stateLength; i++) {
      const y = (key[i] & 0x80000000) | (key[(i + 1) % stateLength] & 0x7fffffff);
      key[i] = key[(i + middle) % stateLength] ^ (y >>> 1) ^ (-(y & 1) & 0x9908b0df);
    }
    this.#position = 0;
  }

  /** The next 32 random bits as an unsigned number. */
  nextUint32(): number {
    if (this.#position === stateLength) this.#refill();
    let y = this.#key[this.#position++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    y ^= y >>> 18;
    return y >>> 0;
  }

  /** A uniform whole number in [0, max], max below 2^32: masked to the bits of max, drawn again while above it. */
  nextInterval(max: number): number {
    if (max === 0) return 0;
    const mask = 0xffffffff >>> Math.clz32(max);
    let value = (this.nextUint32() & mask) >>> 0;
    while (value > max) value = (this.nextUint32() & mask) >>> 0;
    return value;
  }

  /** Puts `array` into random order, in place. */
  shuffle(array: Shufflable): void {
    for (let i = array.length - 1; i > 0; i--) {
      const j = this.nextInterval(i);
      const kept = array[i];
      array[i] = array[j];
      array[j] = kept;
    }
  }
}
