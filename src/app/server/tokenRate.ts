/** Tokens a second over a sliding window, in whole-second buckets. */
const windowSeconds = 10;

export class TokenRate {
  readonly #counts = new Float64Array(windowSeconds);
  /** The second that `#counts` ends with. */
  #second = 0;
  #firstMs: number | undefined;

  add(count: number, nowMs: number): void {
    this.#firstMs ??= nowMs;
    this.#advance(nowMs);
    this.#counts[this.#second % windowSeconds] += count;
  }

  perSecond(nowMs: number): number {
    if (this.#firstMs === undefined) return 0;
    this.#advance(nowMs);
    const total = this.#counts.reduce((sum, count) => sum + count, 0);
    // The newest bucket is still filling.
    const coveredSeconds = windowSeconds - 1 + (nowMs / 1000 - Math.floor(nowMs / 1000));
    return total / Math.min(coveredSeconds, Math.max(1, (nowMs - this.#firstMs) / 1000));
  }

  #advance(nowMs: number): void {
    const second = Math.floor(nowMs / 1000);
    const numNew = Math.min(windowSeconds, second - this.#second);
    for (let i = 1; i <= numNew; i++) this.#counts[(second - numNew + i) % windowSeconds] = 0;
    this.#second = Math.max(second, this.#second);
  }
}
