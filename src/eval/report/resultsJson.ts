/** Results in the schema of the reference harness (`lm_eval/result_schema.py`), so that its readers read them. */
import type { EvaluationResult, TaskResult } from "../evaluate.ts";
import type { Figure } from "../metrics/aggregate.ts";
import type { TaskGroup } from "../task.ts";

export interface ResultsContext {
  modelName: string;
  modelArguments: string;
  device: string;
  limit: number | undefined;
  bootstrapIterations: number;
  seed: number;
  version: string;
  maxLength: number;
  /** Seconds since 1970. */
  date: number;
}

export function resultsJson(result: EvaluationResult, context: ResultsContext): Record<string, unknown> {
  const byTask = <Value>(value: (task: TaskResult) => Value): Record<string, Value> =>
    Object.fromEntries(result.tasks.map((own) => [own.task.name, value(own)]));
  const groups = Object.fromEntries(
    result.groups.map(({ group, figures }) => [group.name, metricsOf(group.title, figures)]),
  );
  return {
    results: { ...byTask(({ task, figures }) => metricsOf(task.title, figures)), ...groups },
    ...(result.groups.length > 0 ? { groups } : {}),
    group_subtasks: Object.fromEntries(result.groups.map(({ group }) => [group.name, group.members])),
    configs: byTask(configOf),
    versions: {
      ...byTask(({ task }) => task.version),
      ...Object.fromEntries(
        result.groups.map(({ group }: { group: TaskGroup }) => [group.name, group.version]),
      ),
    },
    "n-shot": byTask(({ numShots }) => numShots),
    higher_is_better: byTask(({ task }) =>
      Object.fromEntries(task.metrics.map(({ name, higherIsBetter }) => [name, higherIsBetter])),
    ),
    "n-samples": byTask(({ numSamples, samples }) => ({ original: numSamples, effective: samples.length })),
    config: {
      model: "nautilus",
      model_args: context.modelArguments,
      device: context.device,
      limit: context.limit ?? null,
      bootstrap_iters: context.bootstrapIterations,
      random_seed: context.seed,
      fewshot_seed: context.seed,
    },
    date: context.date,
    max_length: context.maxLength,
    model_source: "nautilus",
    model_name: context.modelName,
    nautilus_version: context.version,
    is_partial: result.isPartial,
    total_evaluation_time_seconds: String(result.seconds),
  };
}

function metricsOf(alias: string, figures: Readonly<Record<string, Figure>>): Record<string, unknown> {
  const entries = Object.entries(figures).flatMap(([key, { value, standardError }]) => {
    const [metric, filter] = key.split(",");
    return [
      [key, value],
      [`${metric}_stderr,${filter}`, Number.isNaN(standardError) ? "N/A" : standardError],
    ];
  });
  return { alias, ...Object.fromEntries(entries) };
}

function configOf({ task, numShots, details }: TaskResult): Record<string, unknown> {
  return {
    task: task.name,
    dataset_path: task.source.hub?.repository ?? task.source.folder,
    dataset_name: task.source.hub?.configuration ?? null,
    test_split: task.split,
    output_type: task.ability,
    num_fewshot: numShots,
    metric_list: task.metrics.map(({ name, aggregation, higherIsBetter }) => ({
      metric: name,
      aggregation,
      higher_is_better: higherIsBetter,
    })),
    metadata: { version: task.version, ...details },
  };
}
