/** Values from a producer that never waits to one consumer that does. */
export class EventQueue<Value> {
  #values: Value[] = [];
  #error: { reason: unknown } | undefined;
  #wake: (() => void) | undefined;

  push(value: Value): void {
    this.#values.push(value);
    this.#wake?.();
  }

  /** The consumer gets what is queued, then this. */
  fail(reason: unknown): void {
    this.#error ??= { reason };
    this.#wake?.();
  }

  /** All values that are there; waits for at least one. Throws what `fail` was given. */
  async next(): Promise<readonly Value[]> {
    while (this.#values.length === 0) {
      if (this.#error !== undefined) throw this.#error.reason;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
    const values = this.#values;
    this.#values = [];
    return values;
  }
}
