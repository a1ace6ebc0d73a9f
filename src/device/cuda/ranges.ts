/**
 * Best-fit allocation in one growing range of addresses. Free neighbours are always joined, so the range holds little more than
 * the largest sum of blocks that were ever live together; there are no size classes whose free lists could hoard memory.
 * Pure arithmetic over numbers: knows nothing of devices. Invariants: blocks never overlap, free blocks are never neighbours,
 * every block starts at a multiple of the granule.
 */
import { invariant } from "../../base/index.ts";

/** What backs the range: more of it at its end, or less. */
export interface RangeSource {
  /** Adds at least `byteLength` bytes at the end; gives how many, 0 where there is no room. */
  grow(byteLength: number): number;
  /** Gives back up to `byteLength` bytes from the end; gives how many went. */
  shrink(byteLength: number): number;
}

export interface RangeBlock {
  readonly address: number;
  /** A multiple of the granule. */
  readonly byteLength: number;
}

export class RangeAllocator {
  readonly #granule: number;
  readonly #source: RangeSource;
  #end: number;
  readonly #start: number;
  /** Free blocks by length, then address. */
  readonly #free: RangeBlock[] = [];
  readonly #freeByStart = new Map<number, RangeBlock>();
  readonly #freeByEnd = new Map<number, RangeBlock>();

  /** An empty range at `start`, a multiple of `granule`. */
  constructor(start: number, granule: number, source: RangeSource) {
    this.#start = start;
    this.#end = start;
    this.#granule = granule;
    this.#source = source;
  }

  /** Bytes of the whole range, free ones included. */
  get reservedBytes(): number {
    return this.#end - this.#start;
  }

  /** Bytes in free blocks. */
  get freeBytes(): number {
    return this.#free.reduce((sum, block) => sum + block.byteLength, 0);
  }

  /** The smallest free block that holds `byteLength`, cut to size; the range grows where there is none. Undefined: no room. */
  allocate(byteLength: number): RangeBlock | undefined {
    const length = Math.max(1, Math.ceil(byteLength / this.#granule)) * this.#granule;
    let index = this.#position(length, -1);
    if (index === this.#free.length) {
      if (!this.#growFor(length)) return undefined;
      index = this.#position(length, -1);
    }
    const block = this.#free[index];
    this.#take(index, block);
    if (block.byteLength > length)
      this.#put({ address: block.address + length, byteLength: block.byteLength - length });
    return { address: block.address, byteLength: length };
  }

  /** Takes a block back. */
  free(block: RangeBlock): void {
    let { address, byteLength } = block;
    const before = this.#freeByEnd.get(address);
    if (before !== undefined) {
      this.#take(this.#position(before.byteLength, before.address), before);
      address = before.address;
      byteLength += before.byteLength;
    }
    const after = this.#freeByStart.get(address + byteLength);
    if (after !== undefined) {
      this.#take(this.#position(after.byteLength, after.address), after);
      byteLength += after.byteLength;
    }
    this.#put({ address, byteLength });
  }

  /** Gives the free end of the range back to its source. */
  trim(): void {
    const last = this.#freeByEnd.get(this.#end);
    if (last === undefined) return;
    const gone = this.#source.shrink(last.byteLength);
    if (gone === 0) return;
    this.#take(this.#position(last.byteLength, last.address), last);
    this.#end -= gone;
    if (gone < last.byteLength) this.#put({ address: last.address, byteLength: last.byteLength - gone });
  }

  #growFor(length: number): boolean {
    const last = this.#freeByEnd.get(this.#end);
    const grown = this.#source.grow(length - (last?.byteLength ?? 0));
    if (grown === 0) return false;
    const added = { address: this.#end, byteLength: grown };
    this.#end += grown;
    this.free(added);
    return true;
  }

  /** Index of the first free block not before (length, address). */
  #position(length: number, address: number): number {
    let low = 0;
    let high = this.#free.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const block = this.#free[middle];
      if (block.byteLength < length || (block.byteLength === length && block.address < address))
        low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #take(index: number, block: RangeBlock): void {
    invariant(this.#free[index] === block, "free list out of order");
    this.#free.splice(index, 1);
    this.#freeByStart.delete(block.address);
    this.#freeByEnd.delete(block.address + block.byteLength);
  }

  #put(block: RangeBlock): void {
    this.#free.splice(this.#position(block.byteLength, block.address), 0, block);
    this.#freeByStart.set(block.address, block);
    this.#freeByEnd.set(block.address + block.byteLength, block);
  }
}
