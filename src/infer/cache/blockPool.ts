/**
 * Blocks of the paged cache: who holds them, and what those hold that nobody holds any more. A block that is given back with known
 * contents stays findable until its room is needed; the one that lay unused longest goes first. Pure numbers.
 */
import { invariant } from "../../base/index.ts";
import { PrefixIndex } from "./prefixIndex.ts";
import type { PrefixNode } from "./prefixIndex.ts";

export class BlockPool {
  readonly numBlocks: number;
  readonly blockSize: number;
  readonly prefixes: PrefixIndex;
  readonly #references: Int32Array;
  readonly #nodes: (PrefixNode | undefined)[];
  /** Without contents; taken from the end. */
  readonly #empty: number[];
  /** With contents that nobody holds, the longest unused first. */
  readonly #idle = new Set<number>();

  constructor({ numBlocks, blockSize }: { numBlocks: number; blockSize: number }) {
    this.numBlocks = numBlocks;
    this.blockSize = blockSize;
    this.prefixes = new PrefixIndex(blockSize);
    this.#references = new Int32Array(numBlocks);
    this.#nodes = Array.from({ length: numBlocks }, () => undefined);
    // The lowest numbers go first.
    this.#empty = Array.from({ length: numBlocks }, (_, index) => numBlocks - 1 - index);
  }

  /** Blocks that can be taken, idle ones included. */
  get numFree(): number {
    return this.#empty.length + this.#idle.size;
  }

  /** Blocks that somebody holds. */
  get numUsed(): number {
    return this.numBlocks - this.numFree;
  }

  /** Blocks that nobody holds whose contents can still be found. */
  get numIdle(): number {
    return this.#idle.size;
  }

  isIdle(block: number): boolean {
    return this.#idle.has(block);
  }

  /** Blocks for `numTokens`. */
  blocksFor(numTokens: number): number {
    return Math.ceil(numTokens / this.blockSize);
  }

  /** Takes a block; the caller has seen that one is free. */
  take(): number {
    const block = this.#empty.pop() ?? this.#evict();
    this.#references[block] = 1;
    return block;
  }

  #evict(): number {
    const [oldest] = this.#idle;
    invariant(oldest !== undefined, "a free block");
    this.#idle.delete(oldest);
    const node = this.#nodes[oldest];
    invariant(node !== undefined, "an idle block has contents");
    this.prefixes.remove(node);
    this.#nodes[oldest] = undefined;
    return oldest;
  }

  /** One more holder of a block that `prefixes` found. */
  share(block: number): void {
    if (this.#references[block]++ === 0) this.#idle.delete(block);
  }

  /** One holder less. */
  give(block: number): void {
    const left = --this.#references[block];
    invariant(left >= 0, "a block is given back once by each holder");
    if (left > 0) return;
    if (this.#nodes[block] === undefined) this.#empty.push(block);
    else this.#idle.add(block);
  }

  /** Makes a held block findable as tokens[begin .. begin + blockSize] after the chain `parent`, and gives that chain's number. */
  publish(
    parent: number,
    tokens: readonly number[],
    { begin, block }: { begin: number; block: number },
  ): number {
    const known = this.prefixes.find(parent, tokens, begin);
    if (known !== undefined) return known.id;
    invariant(
      this.#references[block] > 0 && this.#nodes[block] === undefined,
      "a held block without contents",
    );
    return this.#addNode(parent, tokens, { begin, end: begin + this.blockSize, block });
  }

  /** Makes the tokens of a held block that is not full, tokens[begin .. end], findable for those who begin as they do. */
  publishEnd(
    parent: number,
    tokens: readonly number[],
    { begin, end, block }: { begin: number; end: number; block: number },
  ): void {
    const known = this.prefixes.findBeginning(parent, tokens, { begin, end });
    if (known?.numTokens !== end - begin) this.#addNode(parent, tokens, { begin, end, block });
  }

  #addNode(
    parent: number,
    tokens: readonly number[],
    { begin, end, block }: { begin: number; end: number; block: number },
  ): number {
    const node = this.prefixes.add(parent, tokens, { begin, end, block });
    this.#nodes[block] = node;
    return node.id;
  }
}
