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

  // Two loops and the last word instead of one with remainders: half of a bootstrap's time is spent here.
  #twist(): void {
    const state = this.#state;
    const numBefore = stateWords - shiftWords;
    for (let i = 0; i < numBefore; i++) state[i] = state[i + shiftWords] ^ twisted(state[i], state[i + 1]);
    for (let i = numBefore; i < stateWords - 1; i++)
      state[i] = state[i - numBefore] ^ twisted(state[i], state[i + 1]);
    state[stateWords - 1] = state[shiftWords - 1] ^ twisted(state[stateWords - 1], state[0]);
    this.#next = 0;
  }

  /** 32 random bits, unsigned. */
  nextUint32(): number {
    if (this.#next >= stateWords) this.#twist();
    return tempered(this.#state[this.#next++]) >>> 0;
  }

  /** `random()`: in [0, 1), 53 bits. */
  nextFloat(): number {
    const high = this.nextUint32() >>> 5;
    const low = this.nextUint32() >>> 6;
    return (high * 67108864 + low) / 9007199254740992;
  }

  /** `floor(random() * limit)` so often, as `choices` draws places: quicker than one by one. */
  fillPlaces(places: Int32Array, limit: number): void {
    let filled = 0;
    while (filled < places.length) {
      // An odd word left over begins a float whose end is in the next state.
      if (this.#next >= stateWords - 1) {
        places[filled++] = Math.floor(this.nextFloat() * limit);
        continue;
      }
      const state = this.#state;
      const count = Math.min(places.length - filled, (stateWords - this.#next) >> 1);
      for (let i = 0, next = this.#next; i < count; i++, next += 2) {
        const high = tempered(state[next]) >>> 5;
        const low = tempered(state[next + 1]) >>> 6;
        // An exact power of two; storing to Int32Array cuts off the fraction.
        places[filled + i] = (high * 67108864 + low) * 2 ** -53 * limit;
      }
      this.#next += 2 * count;
      filled += count;
    }
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

function twisted(word: number, next: number): number {
  const y = (word & 0x80000000) | (next & 0x7fffffff);
  return (y >>> 1) ^ (-(y & 1) & 0x9908b0df);
}

function tempered(word: number): number {
  let y = word ^ (word >>> 11);
  y ^= (y << 7) & 0x9d2c5680;
  y ^= (y << 15) & 0xefc60000;
  return y ^ (y >>> 18);
}
