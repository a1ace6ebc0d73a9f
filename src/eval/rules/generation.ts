/** Text until a stop string: filtered, then judged. Repeats are sampled with seeds of their own. */
import type { GenerateRequest, MetricInfo, SampleScore, TaskDefinition, TaskRequest } from "../task.ts";
import type { SampleValue } from "../metrics/aggregate.ts";
import type { Question } from "./question.ts";

export function generationMetrics<Row>({ filters, metrics }: GenerateRequest<Row>): MetricInfo[] {
  return Object.keys(filters).flatMap((filter) =>
    Object.entries(metrics).map(([name, { aggregation, higherIsBetter, isShare }]) => ({
      name,
      filter,
      aggregation,
      higherIsBetter,
      isShare,
    })),
  );
}

export function generationRequests<Row>(
  { prompt }: TaskDefinition<Row>,
  { stop, maxNewTokens, temperature: own = 0, repeats = 1 }: GenerateRequest<Row>,
  { row, before, index, options }: Question<Row>,
): TaskRequest[] {
  // Greedy tasks stay greedy: the option is for those that sample.
  const temperature = own > 0 ? (options.temperature ?? own) : 0;
  return Array.from({ length: repeats }, (_, repeat) => ({
    kind: "generate",
    prompt: before + prompt(row),
    stop,
    maxNewTokens,
    // The same seed for all would give the same answer `repeats` times.
    sampling:
      temperature === 0 ? {} : { temperature, seed: options.seed * 1_000_003 + index * repeats + repeat },
  }));
}

export function scoreGeneration<Row>(
  { filters, metrics }: GenerateRequest<Row>,
  row: Row,
  texts: readonly string[],
): SampleScore {
  const values: Record<string, SampleValue> = {};
  let prediction: string | undefined;
  let isCorrect: boolean | undefined;
  for (const [filter, steps] of Object.entries(filters)) {
    const [filtered = ""] = steps.reduce((current, step) => step(current, row), texts);
    prediction ??= filtered;
    for (const [name, { judge, isShare }] of Object.entries(metrics)) {
      const value = judge(filtered, row);
      values[`${name},${filter}`] = value;
      if (isShare && typeof value === "number") isCorrect ??= value === 1;
    }
  }
  return { values, prediction: prediction ?? "", isCorrect };
}
