/**
 * The pairs of neighbouring symbols in the sequences that merges are learnt from: how often each occurs, and in which sequences.
 * Knows nothing of pieces' texts. Invariants: `countOf(pair)` is exact; the sequences listed for a pair are all that hold it and
 * may be some that no longer do.
 */
const noNode = -1;

export class PairTable {
  /** Pair number + 1 by slot; 0 is free. */
  #slots = new Int32Array(1 << 17);
  #mask = (1 << 17) - 1;
  #lefts = new Int32Array(1 << 16);
  #rights = new Int32Array(1 << 16);
  #counts = new Float64Array(1 << 16);
  /** The first node of the list of sequences of each pair. */
  #heads = new Int32Array(1 << 16);
  #numPairs = 0;
  #nodeSequences = new Int32Array(1 << 16);
  #nodeNexts = new Int32Array(1 << 16);
  #numNodes = 0;
  #freeNode = noNode;

  get size(): number {
    return this.#numPairs;
  }

  leftOf(pair: number): number {
    return this.#lefts[pair];
  }

  rightOf(pair: number): number {
    return this.#rights[pair];
  }

  countOf(pair: number): number {
    return this.#counts[pair];
  }

  /** The number of the pair, new or old. */
  intern(left: number, right: number): number {
    const mixed = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
    let slot = (mixed ^ (mixed >>> 15)) & this.#mask;
    for (;;) {
      const pair = this.#slots[slot] - 1;
      if (pair < 0) break;
      if (this.#lefts[pair] === left && this.#rights[pair] === right) return pair;
      slot = (slot + 1) & this.#mask;
    }
    const pair = this.#numPairs++;
    this.#slots[slot] = pair + 1;
    this.#lefts[pair] = left;
    this.#rights[pair] = right;
    this.#counts[pair] = 0;
    this.#heads[pair] = noNode;
    if (this.#numPairs === this.#lefts.length) this.#grow();
    return pair;
  }

  /** Counts `count` more occurrences of the pair in `sequence`. */
  add(pair: number, count: number, sequence: number): void {
    this.#counts[pair] += count;
    const head = this.#heads[pair];
    // Occurrences come sequence by sequence: a repeated one is the one on top.
    if (head !== noNode && this.#nodeSequences[head] === sequence) return;
    let node = this.#freeNode;
    if (node === noNode) {
      node = this.#numNodes++;
      if (node === this.#nodeNexts.length) {
        this.#nodeSequences = grown(this.#nodeSequences);
        this.#nodeNexts = grown(this.#nodeNexts);
      }
    } else {
      this.#freeNode = this.#nodeNexts[node];
    }
    this.#nodeSequences[node] = sequence;
    this.#nodeNexts[node] = head;
    this.#heads[pair] = node;
  }

  /** Counts `count` fewer occurrences. */
  subtract(pair: number, count: number): void {
    this.#counts[pair] -= count;
  }

  /** Takes the pair out: gives its list of sequences to `visit` and sets its count to zero. */
  takeOut(pair: number, visit: (sequence: number) => void): void {
    let node = this.#heads[pair];
    this.#heads[pair] = noNode;
    while (node !== noNode) {
      visit(this.#nodeSequences[node]);
      const next = this.#nodeNexts[node];
      this.#nodeNexts[node] = this.#freeNode;
      this.#freeNode = node;
      node = next;
    }
    this.#counts[pair] = 0;
  }

  #grow(): void {
    this.#lefts = grown(this.#lefts);
    this.#rights = grown(this.#rights);
    this.#heads = grown(this.#heads);
    const counts = new Float64Array(this.#counts.length * 2);
    counts.set(this.#counts);
    this.#counts = counts;
    this.#slots = new Int32Array(this.#slots.length * 2);
    this.#mask = this.#slots.length - 1;
    for (let pair = 0; pair < this.#numPairs; pair++) {
      const mixed = Math.imul(this.#lefts[pair], 0x9e3779b1) ^ Math.imul(this.#rights[pair], 0x85ebca6b);
      let slot = (mixed ^ (mixed >>> 15)) & this.#mask;
      while (this.#slots[slot] !== 0) slot = (slot + 1) & this.#mask;
      this.#slots[slot] = pair + 1;
    }
  }
}

function grown(array: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(array.length * 2);
  larger.set(array);
  return larger;
}
