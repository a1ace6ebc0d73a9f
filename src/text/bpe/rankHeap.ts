/** A binary heap of (rank, position) that gives the lowest rank first and of equals the lowest position; for merging long words. */
export class RankHeap {
  #ranks = new Int32Array(256);
  #positions = new Int32Array(256);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get topRank(): number {
    return this.#ranks[0];
  }

  get topPosition(): number {
    return this.#positions[0];
  }

  push(rank: number, position: number): void {
    if (this.#size === this.#ranks.length) this.#grow();
    let at = this.#size++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#isBefore(rank, position, parent)) break;
      this.#move(parent, at);
      at = parent;
    }
    this.#ranks[at] = rank;
    this.#positions[at] = position;
  }

  /** Removes the top; the heap must not be empty. */
  pop(): void {
    const size = --this.#size;
    const rank = this.#ranks[size];
    const position = this.#positions[size];
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= size) break;
      if (child + 1 < size && this.#isBefore(this.#ranks[child + 1], this.#positions[child + 1], child))
        child++;
      if (this.#isBefore(rank, position, child)) break;
      this.#move(child, at);
      at = child;
    }
    this.#ranks[at] = rank;
    this.#positions[at] = position;
  }

  #isBefore(rank: number, position: number, other: number): boolean {
    return rank < this.#ranks[other] || (rank === this.#ranks[other] && position < this.#positions[other]);
  }

  #move(from: number, to: number): void {
    this.#ranks[to] = this.#ranks[from];
    this.#positions[to] = this.#positions[from];
  }

  #grow(): void {
    const ranks = new Int32Array(this.#size * 2);
    ranks.set(this.#ranks);
    this.#ranks = ranks;
    const positions = new Int32Array(this.#size * 2);
    positions.set(this.#positions);
    this.#positions = positions;
  }
}
