/**
 * Windows over a text longer than the model, as the reference harness cuts them (`get_rolling_token_windows`, context length 1): the
 * first follows the prefix token, later ones predict what is new after at least one token seen before, and the last reaches back to
 * fill the model's length. Every token is scored once.
 */
export interface RollingOptions {
  prefix: number;
  maxTokens: number;
}

export function rollingWindows(
  ids: Int32Array,
  { prefix, maxTokens }: RollingOptions,
): { context: Int32Array; continuation: Int32Array }[] {
  const windows: { context: Int32Array; continuation: Int32Array }[] = [];
  for (let begin = 0; begin < ids.length; begin += maxTokens) {
    const end = Math.min(ids.length, begin + maxTokens);
    const continuation = ids.slice(begin, end);
    const context = begin === 0 ? Int32Array.of(prefix) : ids.slice(Math.max(0, end - maxTokens - 1), begin);
    windows.push({ context, continuation });
  }
  return windows;
}
