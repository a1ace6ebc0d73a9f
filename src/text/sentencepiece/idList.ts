/**
 * The ids of a text while it is encoded. Knows nothing of pieces but the unknown one: a run of unknown pieces is one id, as in
 * SentencePiece, which the caller need not look after.
 */
export class IdList {
  readonly #unkId: number;
  #ids = new Int32Array(1 << 10);
  #length = 0;

  /** Runs of `unkId` become one. */
  constructor(unkId: number) {
    this.#unkId = unkId;
  }

  clear(): void {
    this.#length = 0;
  }

  push(id: number): void {
    if (id === this.#unkId && this.#length > 0 && this.#ids[this.#length - 1] === id) return;
    if (this.#length === this.#ids.length) {
      const ids = new Int32Array(this.#length * 2);
      ids.set(this.#ids);
      this.#ids = ids;
    }
    this.#ids[this.#length++] = id;
  }

  /** The ids, in memory of their own. */
  toArray(): Int32Array {
    return this.#ids.slice(0, this.#length);
  }
}
