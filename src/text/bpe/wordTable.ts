/**
 * A hash table from words (short byte strings) to consecutive numbers, for counting words and for remembering their pieces.
 * Knows nothing of what the numbers stand for. Invariants: number i was given to the i-th word added since the last `clear`;
 * memory is two growing typed arrays, not one object per word.
 * Open addressing with linear probing; hash: FNV-1a over bytes (Fowler, Noll, Vo) with a final mix.
 */
export class WordTable {
  /** Word number + 1 by slot; 0 is free. */
  #slots: Int32Array;
  #mask: number;
  #hashes: Int32Array;
  /** Where each word starts in `bytes`; the last entry is where the next one will. */
  offsets: Int32Array;
  bytes: Uint8Array;
  #numWords = 0;

  constructor(capacity = 1 << 12) {
    this.#slots = new Int32Array(capacity * 2);
    this.#mask = capacity * 2 - 1;
    this.#hashes = new Int32Array(capacity);
    this.offsets = new Int32Array(capacity + 1);
    this.bytes = new Uint8Array(capacity * 8);
  }

  get size(): number {
    return this.#numWords;
  }

  /** The bytes that all words take together. */
  get sizeBytes(): number {
    return this.offsets[this.#numWords];
  }

  /** The number of the word `source[start, end)`: new words get the next number, `size` before the call. */
  intern(source: Uint8Array, start: number, end: number): number {
    const hash = hashBytes(source, start, end);
    const { bytes, offsets } = this;
    const length = end - start;
    let slot = hash & this.#mask;
    for (;;) {
      const word = this.#slots[slot] - 1;
      if (word < 0) return this.#add(source, start, end, hash, slot);
      if (this.#hashes[word] === hash && offsets[word + 1] - offsets[word] === length) {
        let at = offsets[word];
        let from = start;
        while (from < end && bytes[at] === source[from]) {
          at++;
          from++;
        }
        if (from === end) return word;
      }
      slot = (slot + 1) & this.#mask;
    }
  }

  /** Forgets all words and keeps the memory. */
  clear(): void {
    this.#slots.fill(0);
    this.#numWords = 0;
  }

  #add(source: Uint8Array, start: number, end: number, hash: number, slot: number): number {
    const number = this.#numWords;
    let to = this.offsets[number];
    if (to + end - start > this.bytes.length) this.#growBytes(to + end - start);
    // A loop: for a few bytes `set(subarray)` costs more than the copy.
    for (let from = start; from < end; from++) this.bytes[to++] = source[from];
    this.offsets[number + 1] = to;
    this.#hashes[number] = hash;
    this.#slots[slot] = number + 1;
    this.#numWords = number + 1;
    if (this.#numWords === this.#hashes.length) this.#growSlots();
    return number;
  }

  #growBytes(least: number): void {
    const bytes = new Uint8Array(Math.max(least, this.bytes.length * 2));
    bytes.set(this.bytes);
    this.bytes = bytes;
  }

  #growSlots(): void {
    const capacity = this.#hashes.length * 2;
    const hashes = new Int32Array(capacity);
    hashes.set(this.#hashes);
    const offsets = new Int32Array(capacity + 1);
    offsets.set(this.offsets);
    const slots = new Int32Array(capacity * 2);
    const mask = capacity * 2 - 1;
    for (let word = 0; word < this.#numWords; word++) {
      let slot = hashes[word] & mask;
      while (slots[slot] !== 0) slot = (slot + 1) & mask;
      slots[slot] = word + 1;
    }
    this.#hashes = hashes;
    this.offsets = offsets;
    this.#slots = slots;
    this.#mask = mask;
  }
}

function hashBytes(source: Uint8Array, start: number, end: number): number {
  let hash = 0x811c9dc5;
  for (let position = start; position < end; position++)
    hash = Math.imul(hash ^ source[position], 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  return hash ^ (hash >>> 13);
}
