/** A typed array that grows by doubling. Knows nothing of what it holds; `view()` is valid until the next append. */
interface Growable<Self> {
  readonly length: number;
  readonly [index: number]: number;
  set(source: ArrayLike<number>, offset?: number): void;
  subarray(begin: number, end: number): Self;
}

export class GrowingArray<Elements extends Growable<Elements> & { [index: number]: number }> {
  #elements: Elements;
  #length = 0;
  readonly #make: (length: number) => Elements;

  constructor(make: (length: number) => Elements, capacity = 1024) {
    this.#make = make;
    this.#elements = make(capacity);
  }

  get length(): number {
    return this.#length;
  }

  #reserve(length: number): void {
    if (length <= this.#elements.length) return;
    const larger = this.#make(Math.max(length, 2 * this.#elements.length));
    larger.set(this.#elements.subarray(0, this.#length));
    this.#elements = larger;
  }

  push(value: number): void {
    this.#reserve(this.#length + 1);
    this.#elements[this.#length++] = value;
  }

  append(values: ArrayLike<number>): void {
    this.#reserve(this.#length + values.length);
    this.#elements.set(values, this.#length);
    this.#length += values.length;
  }

  /** What has been appended, without a copy. */
  view(): Elements {
    return this.#elements.subarray(0, this.#length);
  }

  /** Forgets the contents and keeps the memory. */
  clear(): void {
    this.#length = 0;
  }
}
