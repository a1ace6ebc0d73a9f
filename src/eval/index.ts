/** Evaluation: tasks as typed records, a harness over a `LanguageModel`, scores equal to the reference harness's. */
export { type DataSource, DataStore, type FetchData, findFiles, usualFiles } from "./data/store.ts";
export { defineGroup, defineTask } from "./define.ts";
export {
  evaluate,
  type EvaluateOptions,
  type EvaluationProgress,
  type EvaluationResult,
  type GroupResult,
  type TaskResult,
} from "./evaluate.ts";
export { extract, type Filter, majorityVote, mapAnswers, takeFirst } from "./filters.ts";
export {
  aggregate,
  type Aggregation,
  combine,
  defaultBootstrapIterations,
  type Figure,
  type SampleValue,
} from "./metrics/aggregate.ts";
export { bestOver, exactMatch, f1, normalizeAnswer } from "./metrics/squad.ts";
export { type CardRow, nemotronCard } from "./report/card.ts";
export { compareLogs, compareValues, type Comparison, mcnemar } from "./report/compare.ts";
export { htmlReport } from "./report/html.ts";
export { modelIndex } from "./report/modelIndex.ts";
export { resultsJson, type ResultsContext } from "./report/resultsJson.ts";
export { columnNotes, markdownTable, type ReportRow, reportRows, shown } from "./report/table.ts";
export { type LoggedSample, SampleLog } from "./sampleLog.ts";
export type { MmluWay } from "./tasks/mmlu.ts";
export { aliases, builtInGroups, builtInTasks, type Selection, TaskRegistry } from "./tasks/registry.ts";
export * from "./task.ts";
