/** Evaluation: tasks as typed records, a harness over a `LanguageModel`, scores equal to the reference harness's. */
export { type DataSource, DataStore, type FetchData, usualFiles } from "./data/store.ts";
export { defineGroup, defineTask } from "./define.ts";
export { extract, type Filter, majorityVote, mapAnswers, takeFirst } from "./filters.ts";
export {
  aggregate,
  combine,
  defaultBootstrapIterations,
  type Figure,
  type SampleValue,
} from "./metrics/aggregate.ts";
export { aliases, builtInGroups, builtInTasks, type Selection, TaskRegistry } from "./tasks/registry.ts";
export type { MmluWay } from "./tasks/mmlu.ts";
export * from "./task.ts";
