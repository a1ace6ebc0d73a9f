/** One continuation: is it what the model would say, and how likely is it (LAMBADA). */
import type {
  Answer,
  ContinuationRequest,
  MetricInfo,
  SampleScore,
  TaskDefinition,
  TaskRequest,
} from "../task.ts";
import { encodeApart } from "./encoding.ts";
import type { Question } from "./question.ts";

export const continuationMetrics: readonly MetricInfo[] = [
  { name: "acc", filter: "none", aggregation: "mean", higherIsBetter: true, isShare: true },
  { name: "perplexity", filter: "none", aggregation: "perplexity", higherIsBetter: false, isShare: false },
];

export function continuationRequest<Row>(
  { prompt }: TaskDefinition<Row>,
  rule: ContinuationRequest<Row>,
  { row, before, options }: Question<Row>,
): TaskRequest {
  const pair = { context: before + prompt(row), continuation: rule.continuation(row) };
  const { tokenizer } = options.model;
  return rule.encoding === "apart" && tokenizer !== undefined
    ? { kind: "loglikelihood", ...encodeApart(tokenizer, pair), texts: pair }
    : { kind: "loglikelihood", ...pair };
}

export function scoreContinuation({
  logprob,
  isGreedy,
}: Extract<Answer, { kind: "likelihood" }>): SampleScore {
  return {
    values: { "acc,none": isGreedy ? 1 : 0, "perplexity,none": logprob },
    prediction: isGreedy ? "the most likely continuation" : "another continuation",
    isCorrect: isGreedy,
  };
}
