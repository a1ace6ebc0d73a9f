/** At most `limit` of the tasks run at once; the others wait in order. */
export class Limit {
  #numFree: number;
  readonly #waiting: (() => void)[] = [];

  constructor(limit: number) {
    this.#numFree = limit;
  }

  async run<Result>(task: () => Promise<Result>): Promise<Result> {
    if (this.#numFree > 0) this.#numFree--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await task();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#numFree++;
      else next();
    }
  }
}

/** Runs all tasks; at the first failure aborts the others through their signal, waits for them, and throws it. */
export async function allOrNone<Item>(
  items: readonly Item[],
  task: (item: Item, signal: AbortSignal) => Promise<void>,
  signal?: AbortSignal,
): Promise<void> {
  const stop = new AbortController();
  const both = signal === undefined ? stop.signal : AbortSignal.any([stop.signal, signal]);
  const failures: unknown[] = [];
  await Promise.all(
    items.map(async (item) => {
      try {
        await task(item, both);
      } catch (error) {
        // The failures after the first are only the abort's echoes.
        failures.push(error);
        stop.abort(error);
      }
    }),
  );
  signal?.throwIfAborted();
  if (failures.length > 0) throw failures[0];
}
