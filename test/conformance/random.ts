/**
 * Seeded test data, quicker than the library's Philox: a 32-bit mixing generator (mulberry32). Each call of a method makes a
 * thunk with a seed of its own, so that data not asked for costs nothing and the same thunk always gives the same values.
 */
export type Values = () => Float64Array;

export class DataSource {
  #seed: number;

  /** The same `name` gives the same data. */
  constructor(name: string) {
    this.#seed = hash(name);
  }

  /** About normal: the sum of four uniform numbers. */
  normal(count: number, { std = 1, mean = 0 }: { std?: number; mean?: number } = {}): Values {
    // Four uniform numbers on [0, 1) have variance 1/3 and mean 2.
    const factor = std * Math.sqrt(3);
    return this.#values(count, (next) => mean + factor * (next() + next() + next() + next() - 2));
  }

  uniform(count: number, low: number, high: number): Values {
    return this.#values(count, (next) => low + (high - low) * next());
  }

  /** Integers in [low, high). */
  integers(count: number, low: number, high: number): Values {
    return this.#values(count, (next) => low + Math.floor((high - low) * next()));
  }

  /** `count` different integers in [0, limit), in random order. */
  distinct(count: number, limit: number): Values {
    const keys = this.uniform(limit, 0, 1);
    return () => {
      const order = keys();
      return Float64Array.from(Array.from(order.keys()).sort((a, b) => order[a] - order[b])).slice(0, count);
    };
  }

  #values(count: number, draw: (next: () => number) => number): Values {
    this.#seed = Math.imul(this.#seed ^ 0x2545f491, 0x9e3779b1) >>> 0;
    const seed = this.#seed;
    return () => {
      const next = generator(seed);
      const values = new Float64Array(count);
      for (let i = 0; i < count; i++) values[i] = draw(next);
      return values;
    };
  }
}

/** Uniform numbers in [0, 1). */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** FNV-1a. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (const character of text) value = Math.imul(value ^ (character.codePointAt(0) ?? 0), 0x01000193);
  return value >>> 0;
}
