/**
 * BLEU (Papineni et al., 2002) and chrF (Popović, 2015) of a corpus with one reference a segment, in the settings of sacrebleu's
 * defaults: BLEU with the tokenisation of mteval-v13a and exponential smoothing, chrF over 1 to 6 characters with beta 2.
 */
import { splitWords } from "../python/text.ts";

export interface Translation {
  readonly hypothesis: string;
  readonly reference: string;
}

const bleuOrder = 4;

/** Percent. */
export function corpusBleu(translations: readonly Translation[]): number {
  const matches = Array.from({ length: bleuOrder }, () => 0);
  const totals = Array.from({ length: bleuOrder }, () => 0);
  let hypothesisLength = 0;
  let referenceLength = 0;
  for (const { hypothesis, reference } of translations) {
    const words = tokenize13a(hypothesis);
    const referenceWords = tokenize13a(reference);
    hypothesisLength += words.length;
    referenceLength += referenceWords.length;
    for (let order = 1; order <= bleuOrder; order++) {
      totals[order - 1] += Math.max(0, words.length - order + 1);
      matches[order - 1] += overlap(countGrams(words, order), countGrams(referenceWords, order));
    }
  }
  return bleuOf(matches, totals, { hypothesisLength, referenceLength });
}

function bleuOf(
  matches: readonly number[],
  totals: readonly number[],
  { hypothesisLength, referenceLength }: { hypothesisLength: number; referenceLength: number },
): number {
  if (!matches.some((count) => count > 0)) return 0;
  let smoothing = 1;
  let logSum = 0;
  for (const [index, total] of totals.entries()) {
    // Without n-grams of this order the precision is 0, and so is the score.
    if (total === 0) return 0;
    if (matches[index] === 0) smoothing *= 2;
    const precision = matches[index] === 0 ? 100 / (smoothing * total) : (100 * matches[index]) / total;
    logSum += Math.log(precision);
  }
  const brevity = hypothesisLength < referenceLength ? Math.exp(1 - referenceLength / hypothesisLength) : 1;
  return brevity * Math.exp(logSum / bleuOrder);
}

/** The words and marks of a segment, as mteval-v13a splits them. */
export function tokenize13a(segment: string): string[] {
  let text = segment.replaceAll("<skipped>", "").replaceAll("-\n", "").replaceAll("\n", " ");
  text = text
    .replaceAll("&quot;", '"')
    .replaceAll("&amp;", "&")
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">");
  text = ` ${text} `
    .replace(/([{-~[-` -&(-+:-@/])/g, " $1 ")
    .replace(/([^0-9])([.,])/gu, "$1 $2 ")
    .replace(/([.,])([^0-9])/gu, " $1 $2")
    .replace(/([0-9])(-)/g, "$1 $2 ");
  return splitWords(text);
}

const chrfOrder = 6;
const chrfBeta = 2;

/** Percent. */
export function chrf(translations: readonly Translation[]): number {
  let precision = 0;
  let recall = 0;
  let numOrders = 0;
  const pairs = translations.map(({ hypothesis, reference }) => ({
    hypothesis: Array.from(splitWords(hypothesis).join("")),
    reference: Array.from(splitWords(reference).join("")),
  }));
  for (let order = 1; order <= chrfOrder; order++) {
    let inHypothesis = 0;
    let inReference = 0;
    let inBoth = 0;
    for (const { hypothesis, reference } of pairs) {
      const referenceCount = Math.max(0, reference.length - order + 1);
      // What has no reference of this length is not held against the hypothesis.
      if (referenceCount > 0) inHypothesis += Math.max(0, hypothesis.length - order + 1);
      inReference += referenceCount;
      inBoth += overlap(countGrams(hypothesis, order), countGrams(reference, order));
    }
    if (inHypothesis === 0 || inReference === 0) continue;
    precision += inBoth / inHypothesis;
    recall += inBoth / inReference;
    numOrders++;
  }
  if (numOrders === 0 || precision + recall === 0) return 0;
  const weight = chrfBeta ** 2;
  return (
    (100 * (1 + weight) * (precision / numOrders) * (recall / numOrders)) /
    ((weight * precision + recall) / numOrders)
  );
}

/** How often each run of `order` items is there. */
export function countGrams(items: readonly string[], order: number): Map<string, number> {
  const counts = new Map<string, number>();
  for (let at = 0; at + order <= items.length; at++) {
    const gram = items.slice(at, at + order).join("\u0000");
    counts.set(gram, (counts.get(gram) ?? 0) + 1);
  }
  return counts;
}

/** How many runs two texts share. */
export function overlap(a: ReadonlyMap<string, number>, b: ReadonlyMap<string, number>): number {
  let shared = 0;
  for (const [gram, count] of a) shared += Math.min(count, b.get(gram) ?? 0);
  return shared;
}
