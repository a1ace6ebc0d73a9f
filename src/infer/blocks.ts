/** Blocks of the paged cache: which are free. Pure numbers. */
import { invariant, NautilusError } from "../base/index.ts";

export class BlockAllocator {
  readonly numBlocks: number;
  readonly #free: number[];

  constructor(numBlocks: number) {
    this.numBlocks = numBlocks;
    // Taken from the end: the lowest numbers go first.
    this.#free = Array.from({ length: numBlocks }, (_, index) => numBlocks - 1 - index);
  }

  get numFree(): number {
    return this.#free.length;
  }

  /** Takes `count` blocks. Throws NautilusError when there are not enough. */
  take(count: number): number[] {
    if (count > this.#free.length) {
      throw new NautilusError(
        "cache",
        `expected ${count} free blocks, got ${this.#free.length} of ${this.numBlocks}`,
        {
          hint: "generate fewer or shorter sequences at once",
        },
      );
    }
    return Array.from({ length: count }, () => {
      const block = this.#free.pop();
      invariant(block !== undefined, "a free block");
      return block;
    });
  }

  give(blocks: readonly number[]): void {
    this.#free.push(...blocks.toReversed());
    invariant(this.#free.length <= this.numBlocks, "a block is given back once");
  }
}
