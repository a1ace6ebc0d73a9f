/**
 * Pairs by falling count, of equal counts the pair of lower ids first, for choosing the next merge. Entries go stale when counts
 * change; the caller compares. A binary heap of numbers in typed arrays.
 */
import type { PairTable } from "./pairTable.ts";

export class PairQueue {
  readonly #table: PairTable;
  #pairs = new Int32Array(1 << 16);
  #counts = new Float64Array(1 << 16);
  #size = 0;

  constructor(table: PairTable) {
    this.#table = table;
  }

  get size(): number {
    return this.#size;
  }

  /** The count that the top had when it was pushed. */
  get topCount(): number {
    return this.#counts[0];
  }

  push(pair: number): void {
    if (this.#size === this.#pairs.length) this.#grow();
    const count = this.#table.countOf(pair);
    let at = this.#size++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#isBefore(pair, count, parent)) break;
      this.#pairs[at] = this.#pairs[parent];
      this.#counts[at] = this.#counts[parent];
      at = parent;
    }
    this.#pairs[at] = pair;
    this.#counts[at] = count;
  }

  /** Removes and gives the top pair; the queue must not be empty. */
  pop(): number {
    const top = this.#pairs[0];
    const size = --this.#size;
    const pair = this.#pairs[size];
    const count = this.#counts[size];
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= size) break;
      if (child + 1 < size && this.#isBefore(this.#pairs[child + 1], this.#counts[child + 1], child)) child++;
      if (this.#isBefore(pair, count, child)) break;
      this.#pairs[at] = this.#pairs[child];
      this.#counts[at] = this.#counts[child];
      at = child;
    }
    this.#pairs[at] = pair;
    this.#counts[at] = count;
    return top;
  }

  #isBefore(pair: number, count: number, other: number): boolean {
    if (count !== this.#counts[other]) return count > this.#counts[other];
    const otherPair = this.#pairs[other];
    const byLeft = this.#table.leftOf(pair) - this.#table.leftOf(otherPair);
    return byLeft !== 0 ? byLeft < 0 : this.#table.rightOf(pair) < this.#table.rightOf(otherPair);
  }

  #grow(): void {
    const pairs = new Int32Array(this.#size * 2);
    pairs.set(this.#pairs);
    this.#pairs = pairs;
    const counts = new Float64Array(this.#size * 2);
    counts.set(this.#counts);
    this.#counts = counts;
  }
}
