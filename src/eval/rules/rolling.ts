/** Whole texts: their likelihood spread over words and bytes. */
import { byteLength } from "../python/text.ts";
import type { MetricInfo, RollingRequest, SampleScore } from "../task.ts";

const lower = { filter: "none", higherIsBetter: false, isShare: false } as const;

export const rollingMetrics: readonly MetricInfo[] = [
  { name: "word_perplexity", aggregation: "weighted_perplexity", ...lower },
  { name: "byte_perplexity", aggregation: "weighted_perplexity", ...lower },
  { name: "bits_per_byte", aggregation: "bits_per_byte", ...lower },
];

// oxlint-disable-next-line no-control-regex -- U+001C-U+001F are whitespace to Python's \s
const whitespace =
  /[\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/u;

export function scoreRolling<Row>(rule: RollingRequest<Row>, row: Row, logprob: number): SampleScore {
  const original = rule.original(row);
  const words = { logprob, weight: original.split(whitespace).length };
  const bytes = { logprob, weight: byteLength(original) };
  return {
    values: { "word_perplexity,none": words, "byte_perplexity,none": bytes, "bits_per_byte,none": bytes },
    prediction: "",
    isCorrect: undefined,
  };
}
