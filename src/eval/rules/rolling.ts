/** Whole texts: their likelihood spread over words and bytes. */
import { byteLength, splitAtWhitespace } from "../python/text.ts";
import type { MetricInfo, RollingRequest, SampleScore } from "../task.ts";

const lower = { filter: "none", higherIsBetter: false, isShare: false } as const;

export const rollingMetrics: readonly MetricInfo[] = [
  { name: "word_perplexity", aggregation: "weighted_perplexity", ...lower },
  { name: "byte_perplexity", aggregation: "weighted_perplexity", ...lower },
  { name: "bits_per_byte", aggregation: "bits_per_byte", ...lower },
];

export function scoreRolling<Row>(rule: RollingRequest<Row>, row: Row, logprob: number): SampleScore {
  const original = rule.original(row);
  const words = { logprob, weight: splitAtWhitespace(original).length };
  const bytes = { logprob, weight: byteLength(original) };
  return {
    values: { "word_perplexity,none": words, "byte_perplexity,none": bytes, "bits_per_byte,none": bytes },
    prediction: "",
    isCorrect: undefined,
  };
}
