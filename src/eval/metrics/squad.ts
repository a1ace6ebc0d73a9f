/**
 * Exact match and F1 of answers as SQuAD 1.1 scores them (`evaluate-v1.1.py`), which is TyDiQA-GoldP's metric too. Nothing in it
 * knows languages: articles are English ones, and punctuation is the 32 marks of ASCII.
 */
import { splitWords } from "../python/text.ts";

const punctuation = /[!-/:-@[-`{-~]/g;
// `\b` knows only ASCII letters in JavaScript: "maría" would lose its "a".
const articles = /(?<![\p{L}\p{N}_\p{M}])(?:a|an|the)(?![\p{L}\p{N}_])/gu;

/** Lower case, without punctuation and articles, single spaces. */
export function normalizeAnswer(text: string): string {
  return splitWords(text.toLowerCase().replace(punctuation, "").replace(articles, " ")).join(" ");
}

export function exactMatch(prediction: string, answer: string): number {
  return normalizeAnswer(prediction) === normalizeAnswer(answer) ? 1 : 0;
}

/** Of the bags of words; 0 when nothing is shared. */
export function f1(prediction: string, answer: string): number {
  const [predicted, right] = [splitWords(normalizeAnswer(prediction)), splitWords(normalizeAnswer(answer))];
  const left = new Map<string, number>();
  for (const word of right) left.set(word, (left.get(word) ?? 0) + 1);
  let numShared = 0;
  for (const word of predicted) {
    const count = left.get(word) ?? 0;
    if (count === 0) continue;
    left.set(word, count - 1);
    numShared++;
  }
  if (numShared === 0) return 0;
  const precision = numShared / predicted.length;
  const recall = numShared / right.length;
  return (2 * precision * recall) / (precision + recall);
}

/** The best of a measure over the accepted answers. */
export function bestOver(
  measure: (prediction: string, answer: string) => number,
  prediction: string,
  answers: readonly string[],
): number {
  return Math.max(0, ...answers.map((answer) => measure(prediction, answer)));
}
