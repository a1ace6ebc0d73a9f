/**
 * ROUGE (Lin, 2004): F1 of shared runs of words, and of the longest common subsequence. Words are runs of letters and digits of any
 * script, lower-cased; on texts of ASCII this equals the Python package rouge_score without stemming.
 */
import { countGrams, overlap } from "./translation.ts";

function wordsOf(text: string): string[] {
  return text.toLowerCase().match(/[\p{L}\p{N}\p{M}]+/gu) ?? [];
}

function f1Of(shared: number, numPredicted: number, numRight: number): number {
  if (shared === 0) return 0;
  const precision = shared / numPredicted;
  const recall = shared / numRight;
  return (2 * precision * recall) / (precision + recall);
}

/** ROUGE-N. */
export function rouge(prediction: string, reference: string, order: 1 | 2): number {
  const [predicted, right] = [countGrams(wordsOf(prediction), order), countGrams(wordsOf(reference), order)];
  const total = (counts: ReadonlyMap<string, number>): number =>
    [...counts.values()].reduce((sum, count) => sum + count, 0);
  return f1Of(overlap(predicted, right), total(predicted), total(right));
}

/** ROUGE-L. */
export function rougeL(prediction: string, reference: string): number {
  const [predicted, right] = [wordsOf(prediction), wordsOf(reference)];
  let previous = new Uint32Array(right.length + 1);
  for (const word of predicted) {
    const row = new Uint32Array(right.length + 1);
    for (let j = 1; j <= right.length; j++)
      row[j] = word === right[j - 1] ? previous[j - 1] + 1 : Math.max(previous[j], row[j - 1]);
    previous = row;
  }
  return f1Of(previous[right.length], predicted.length, right.length);
}
