/** The blocks of one sequence's context in order, kept as machine integers so that a step copies them in one go. */
export class BlockTable {
  #blocks = new Int32Array(8);
  #length = 0;
  #version = 0;

  /** Changes with every change of the table. */
  get version(): number {
    return this.#version;
  }

  get length(): number {
    return this.#length;
  }

  at(index: number): number {
    return this.#blocks[index];
  }

  push(block: number): void {
    this.#version++;
    if (this.#length === this.#blocks.length) {
      const wider = new Int32Array(2 * this.#length);
      wider.set(this.#blocks);
      this.#blocks = wider;
    }
    this.#blocks[this.#length++] = block;
  }

  pop(): number | undefined {
    this.#version++;
    return this.#length === 0 ? undefined : this.#blocks[--this.#length];
  }

  /** A view, valid until the next change. */
  values(): Int32Array {
    return this.#blocks.subarray(0, this.#length);
  }
}
