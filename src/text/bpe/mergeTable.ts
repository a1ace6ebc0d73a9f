/**
 * The merges of a byte-pair encoding as a hash table from a pair of piece ids to the merge's rank, and the application of them
 * to one word. Knows nothing of text. Invariant: `apply` merges the pair of lowest rank first, the leftmost of equals, until none
 * is left (Sennrich, Haddow, Birch, "Neural machine translation of rare words with subword units", 2016).
 */
import { RankHeap } from "./rankHeap.ts";

/** Words of more symbols go through a heap: the plain search costs their length squared. */
const longestSearched = 48;
/** The rank of a pair that no merge joins. */
const noRank = 0x7fffffff;

export class MergeTable {
  /** Four numbers a slot: left id + 1 (0 is free), right id, rank, id of the merged piece. */
  readonly #slots: Int32Array;
  readonly #mask: number;
  readonly #ranks = new Int32Array(longestSearched + 1);
  #heap: RankHeap | undefined;

  /** `merges` in order of rank; of a pair given twice the later merge counts, as in the official library. */
  constructor(merges: readonly { left: number; right: number; merged: number }[]) {
    let numSlots = 16;
    while (numSlots < merges.length * 4) numSlots *= 2;
    this.#slots = new Int32Array(numSlots * 4);
    this.#mask = numSlots - 1;
    merges.forEach(({ left, right, merged }, rank) => {
      const slot = this.#find(left, right);
      this.#slots.set([left + 1, right, rank, merged], slot);
    });
  }

  /** Where the pair is in `#slots`, or the free place where it would be. */
  #find(left: number, right: number): number {
    const slots = this.#slots;
    const mixed = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
    let slot = (mixed ^ (mixed >>> 15)) & this.#mask;
    for (;;) {
      const at = slot * 4;
      const found = slots[at];
      if (found === 0 || (found === left + 1 && slots[at + 1] === right)) return at;
      slot = (slot + 1) & this.#mask;
    }
  }

  #rankOf(left: number, right: number): number {
    const at = this.#find(left, right);
    return this.#slots[at] === 0 ? noRank : this.#slots[at + 2];
  }

  /** Merges `symbols[start, end)` in place; gives back where the merged symbols end. */
  apply(symbols: Int32Array, start: number, end: number): number {
    if (end - start < 2) return end;
    return end - start <= longestSearched
      ? this.#applyBySearch(symbols, start, end)
      : this.#applyByHeap(symbols, start, end);
  }

  #applyBySearch(symbols: Int32Array, start: number, end: number): number {
    const ranks = this.#ranks;
    let length = end - start;
    for (let i = 0; i + 1 < length; i++) ranks[i] = this.#rankOf(symbols[start + i], symbols[start + i + 1]);
    for (;;) {
      let best = noRank;
      let at = -1;
      for (let i = 0; i + 1 < length; i++) {
        if (ranks[i] < best) {
          best = ranks[i];
          at = i;
        }
      }
      if (at < 0) return start + length;
      const here = start + at;
      symbols[here] = this.#slots[this.#find(symbols[here], symbols[here + 1]) + 3];
      length--;
      for (let i = at + 1; i < length; i++) {
        symbols[start + i] = symbols[start + i + 1];
        ranks[i] = ranks[i + 1];
      }
      if (at + 1 < length) ranks[at] = this.#rankOf(symbols[here], symbols[here + 1]);
      if (at > 0) ranks[at - 1] = this.#rankOf(symbols[here - 1], symbols[here]);
    }
  }

  /** The same for long words: a linked list of symbols and a heap of candidate merges, n log n. */
  #applyByHeap(symbols: Int32Array, start: number, end: number): number {
    const length = end - start;
    const next = Int32Array.from({ length }, (_, i) => i + 1);
    const previous = Int32Array.from({ length }, (_, i) => i - 1);
    const heap = (this.#heap ??= new RankHeap());
    const propose = (at: number): void => {
      const after = next[at];
      if (at < 0 || after >= length) return;
      const rank = this.#rankOf(symbols[start + at], symbols[start + after]);
      if (rank !== noRank) heap.push(rank, at);
    };
    for (let i = 0; i + 1 < length; i++) propose(i);
    const gone = -1;
    while (heap.size > 0) {
      const rank = heap.topRank;
      const at = heap.topPosition;
      heap.pop();
      const after = next[at];
      if (symbols[start + at] === gone || after >= length) continue;
      const slot = this.#find(symbols[start + at], symbols[start + after]);
      // The pair that stood here when this candidate was proposed may since have become another one.
      if (this.#slots[slot] === 0 || this.#slots[slot + 2] !== rank) continue;
      symbols[start + at] = this.#slots[slot + 3];
      symbols[start + after] = gone;
      next[at] = next[after];
      if (next[at] < length) previous[next[at]] = at;
      propose(at);
      if (previous[at] >= 0) propose(previous[at]);
    }
    let to = start;
    for (let i = 0; i < length; i = next[i]) symbols[to++] = symbols[start + i];
    return to;
  }
}
