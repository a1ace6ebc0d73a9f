/** Special tokens inside a text. Knows nothing of tokenizers. */

/** A pattern that matches the leftmost special token, the longest of those that start there. */
export function patternOf(specialTokens: readonly string[]): RegExp {
  const longestFirst = specialTokens.toSorted((a, b) => b.length - a.length);
  return new RegExp(
    longestFirst.map((token) => token.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")).join("|"),
    "g",
  );
}
