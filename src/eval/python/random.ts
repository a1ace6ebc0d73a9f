/**
 * Python's `random.Random`: the Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998) seeded by a whole number as CPython does,
 * with the functions the reference harness draws by: `choices` for bootstrap errors, `sample` for few-shot examples. The same seed
 * gives the same draws, so prompts and standard errors equal the reference's.
 */
const stateWords = 624;
const shiftWords = 397;

export class PythonRandom {
  readonly #state = new Uint32Array(stateWords);
  #next = stateWords;

  /** `random.Random(seed)` for a whole number from 0 to 2^53. */
  constructor(seed: number) {
    const key = seed < 2 ** 32 ? [seed] : [seed % 2 ** 32, Math.floor(seed / 2 ** 32)];
    this.#seedByArray(key);
  }

  #seedByArray(key: readonly number[]): void {
    const state = this.#state;
    state[0] = 19650218;
    for (let i = 1; i < stateWords; i++)
      state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
    let i = 1;
    const mix = (multiplier: number): number => Math.imul(state[i - 1] ^ (state[i - 1] >>> 30), multiplier);
    const advance = (): void => {
      if (++i < stateWords) return;
      state[0] = state[stateWords - 1];
      i = 1;
    };
    for (let k = 0, j = 0; k < Math.max(stateWords, key.length); k++, j = (j + 1) % key.length) {
      state[i] = (state[i] ^ mix(1664525)) + key[j] + j;
      advance();
    }
    for (let k = 0; k < stateWords - 1; k++) {
      state[i] = (state[i] ^ mix(1566083941)) - i;
      advance();
    }
    state[0] = 0x80000000;
  }

  #twist(): void {
    const state = this.#state;
    for (let i = 0; i < stateWords; i++) {
      const y = (state[i] & 0x80000000) | (state[(i + 1) % stateWords] & 0x7fffffff);
      state[i] = state[(i + shiftWords) % stateWords] ^ (y >>> 1) ^ ((y & 1) === 0 ? 0 : 0x9908b0df);
    }
    this.#next = 0;
  }

  /** 32 random bits, unsigned. */
  nextUint32(): number {
    if (this.#next >= stateWords) this.#twist();
    let y = this.#state[this.#next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** `random()`: in [0, 1), 53 bits. */
  nextFloat(): number {
    const high = this.nextUint32() >>> 5;
    const low = this.nextUint32() >>> 6;
    return (high * 67108864 + low) / 9007199254740992;
  }

  /** `_randbelow(limit)`: drawn again until it is below, as CPython does. */
  nextBelow(limit: number): number {
    const numBits = 32 - Math.clz32(limit);
    for (;;) {
      const value = numBits === 0 ? 0 : this.nextUint32() >>> (32 - numBits);
      if (value < limit) return value;
    }
  }

  /** The places that `sample(range(size), count)` draws, each at most once. */
  sampleIndices(size: number, count: number): number[] {
    let poolLimit = 21;
    if (count > 5) poolLimit += 4 ** Math.ceil(Math.log(count * 3) / Math.log(4));
    if (size <= poolLimit) {
      const pool = Array.from({ length: size }, (_, index) => index);
      return Array.from({ length: count }, (_, i) => {
        const j = this.nextBelow(size - i);
        const drawn = pool[j];
        pool[j] = pool[size - i - 1];
        return drawn;
      });
    }
    const drawn = new Set<number>();
    while (drawn.size < count) drawn.add(this.nextBelow(size));
    return [...drawn];
  }
}
