/** Runs a task over items with so many under way at once; results stand in the items' order. */
export interface Pace {
  numConcurrent: number;
  signal?: AbortSignal | undefined;
  onProgress?: ((numDone: number, numItems: number) => void) | undefined;
}

/** Throws the first error; the rest is not begun. */
export async function inOrder<Item, Result>(
  items: readonly Item[],
  { numConcurrent, signal, onProgress }: Pace,
  body: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  results.length = items.length;
  let next = 0;
  let numDone = 0;
  const work = async (): Promise<void> => {
    while (next < items.length) {
      signal?.throwIfAborted();
      const place = next++;
      results[place] = await body(items[place]);
      numDone++;
      onProgress?.(numDone, items.length);
    }
  };
  await Promise.all(Array.from({ length: Math.min(numConcurrent, items.length) }, work));
  return results;
}
