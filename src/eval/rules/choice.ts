/**
 * Multiple choice: a log-likelihood for each choice, the highest wins, the first of equals. Normalised variants divide by the
 * length of the choice without the space before it.
 */
import { byteLength, length } from "../python/text.ts";
import type {
  Answer,
  ChoiceMetric,
  ChoiceRequest,
  MetricInfo,
  SampleScore,
  TaskDefinition,
  TaskRequest,
} from "../task.ts";
import { encodeApart, lastTokenOf } from "./encoding.ts";
import type { Question } from "./question.ts";

type Likelihood = Extract<Answer, { kind: "likelihood" }>;

export function choiceMetrics<Row>({ metrics }: ChoiceRequest<Row>): MetricInfo[] {
  return metrics.map((metric) => ({
    name: metric === "mass" ? "acc" : metric,
    filter: "none",
    aggregation: "mean",
    higherIsBetter: true,
    isShare: true,
  }));
}

export function choiceRequests<Row>(
  { prompt, delimiter = " " }: TaskDefinition<Row>,
  rule: ChoiceRequest<Row>,
  { row, before, options }: Question<Row>,
): TaskRequest[] {
  const { contexts, continuation } = rule;
  const pairs =
    contexts !== undefined && continuation !== undefined
      ? contexts(row).map((context) => ({
          context: before + context,
          continuation: delimiter + continuation(row),
        }))
      : rule
          .choices(row)
          .map((choice) => ({ context: before + prompt(row), continuation: delimiter + choice }));
  const { tokenizer } = options.model;
  return pairs.map((pair) => {
    if (rule.encoding === undefined || rule.encoding === "jointly" || tokenizer === undefined)
      return { kind: "loglikelihood", ...pair };
    if (rule.encoding === "apart")
      return { kind: "loglikelihood", ...encodeApart(tokenizer, pair), texts: pair };
    return { kind: "loglikelihood", ...lastTokenOf(tokenizer, pair), texts: pair };
  });
}

export function scoreChoice<Row>(
  rule: ChoiceRequest<Row>,
  row: Row,
  answers: readonly Likelihood[],
): SampleScore {
  const choices = rule.choices(row);
  const gold = rule.gold(row);
  const logprobs = answers.map(({ logprob }) => logprob);
  const divided = (sizes: readonly number[]): number[] =>
    logprobs.map((logprob, index) => logprob / sizes[index]);
  const isGold = (choice: number): number => (gold.includes(choice) ? 1 : 0);
  const measures: Record<ChoiceMetric, () => number> = {
    acc: () => isGold(argmax(logprobs)),
    acc_norm: () => isGold(argmax(divided(choices.map(length)))),
    acc_bytes: () => isGold(argmax(divided(choices.map(byteLength)))),
    acc_norm_tokens: () => isGold(argmax(divided(answers.map(({ numTokens }) => numTokens)))),
    exact_match: () => (gold.some((choice) => answers[choice].isGreedy) ? 1 : 0),
    mass: () => massOf(logprobs, gold),
  };
  const values = Object.fromEntries(
    rule.metrics.map((metric) => [`${metric === "mass" ? "acc" : metric},none`, measures[metric]()]),
  );
  const [first] = rule.metrics;
  const greedy = answers.findIndex(({ isGreedy }) => isGreedy);
  const picked = first === "exact_match" ? greedy : argmax(logprobs);
  return {
    values,
    prediction: picked < 0 ? "none of them" : choices[picked],
    isCorrect: first === "mass" ? undefined : values[`${first},none`] === 1,
  };
}

/** The place of the highest value; the first of equals; a NaN wins, as in NumPy. */
export function argmax(values: readonly number[]): number {
  let best = 0;
  for (const [index, value] of values.entries()) {
    if (Number.isNaN(value)) return index;
    if (value > values[best]) best = index;
  }
  return best;
}

/** The share of the probability that the right choices have together. */
function massOf(logprobs: readonly number[], gold: readonly number[]): number {
  // Without taking the highest out first, as the reference does: long answers may all vanish, and the share is then NaN.
  const probabilities = logprobs.map(Math.exp);
  const total = probabilities.reduce((sum, probability) => sum + probability, 0);
  return gold.reduce((sum, choice) => sum + probabilities[choice] / total, 0);
}
