/**
 * Texts of different lengths in rows of one length: packed (several texts in a row, each seeing only itself, its positions from 0) or one
 * to a row. What an epoch holds, and in which order, follows from the seed alone.
 */
import { RandomStream } from "../../base/index.ts";

/** Indices of `0 … count - 1` in an order drawn from (seed, epoch). */
export function shuffled(count: number, seed: number, epoch: number): number[] {
  const random = new RandomStream(seed, epoch * 2 ** 32);
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = random.nextInt(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

/** First-fit decreasing (Johnson, 1973): rows of at most `capacity`, as indices of texts. */
export function packFirstFit(lengths: readonly number[], capacity: number): number[][] {
  const order = lengths.map((length, index) => ({ length, index }));
  order.sort((a, b) => b.length - a.length || a.index - b.index);
  const rows: { used: number; members: number[] }[] = [];
  // The first row that may have room for a length: rows before it are fuller than that.
  const firstFor = new Map<number, number>();
  for (const { length, index } of order) {
    let at = firstFor.get(length) ?? 0;
    while (at < rows.length && rows[at].used + length > capacity) at++;
    firstFor.set(length, at);
    if (at === rows.length) rows.push({ used: 0, members: [] });
    rows[at].used += length;
    rows[at].members.push(index);
  }
  return rows.map(({ members }) => members);
}
