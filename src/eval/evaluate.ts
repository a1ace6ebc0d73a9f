/** Runs tasks with a model: samples in pieces, logged as they are done, then figures of tasks and groups. */
import { join } from "node:path";
import { ConfigError, makeFolder } from "../base/index.ts";
import type { LanguageModel } from "../text/index.ts";
import { ask } from "./ask.ts";
import type { DataStore } from "./data/store.ts";
import { aggregate, combine, defaultBootstrapIterations } from "./metrics/aggregate.ts";
import type { Figure } from "./metrics/aggregate.ts";
import { logEntry, promptHash, SampleLog } from "./sampleLog.ts";
import type { LoggedSample } from "./sampleLog.ts";
import { metricKey } from "./task.ts";
import type { OpenTask, OpenTaskOptions, Sample, Task, TaskGroup } from "./task.ts";

export interface EvaluateOptions {
  numShots?: number | undefined;
  /** Only the first so many samples of each task; below 1: that share of them. */
  limit?: number | undefined;
  /** Seed of examples and of sampled answers; the reference harness's is 1234. */
  seed?: number;
  temperature?: number | undefined;
  bootstrapIterations?: number;
  /** Requests that the model gets at once: many, since the last of them leave its steps half empty. Default 2048. */
  requestsAtOnce?: number;
  /** Folder for the logs, one file a task; without one nothing is kept. */
  logFolder?: string | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: (progress: EvaluationProgress) => void;
}

export interface EvaluationProgress {
  task: string;
  /** Of all tasks. */
  numDoneRequests: number;
  numRequests: number;
}

export interface TaskResult {
  task: Task;
  numShots: number;
  /** Samples the split has, and those that were scored. */
  numSamples: number;
  numScored: number;
  /** By `metricKey`. */
  figures: Readonly<Record<string, Figure>>;
  details: Readonly<Record<string, unknown>>;
  samples: readonly LoggedSample[];
}

export interface GroupResult {
  group: TaskGroup;
  figures: Readonly<Record<string, Figure>>;
}

export interface EvaluationResult {
  tasks: readonly TaskResult[];
  groups: readonly GroupResult[];
  /** Stopped before its end by the signal. */
  isPartial: boolean;
  seconds: number;
}

interface PlannedTask {
  task: Task;
  open: OpenTask;
  numScored: number;
  log: SampleLog | undefined;
  done: Map<number, LoggedSample>;
}

/** Evaluates. Throws DataError, ConfigError, and what the model throws. */
export async function evaluate(
  model: LanguageModel,
  { tasks, groups }: { tasks: readonly Task[]; groups: readonly TaskGroup[] },
  store: DataStore,
  options: EvaluateOptions = {},
): Promise<EvaluationResult> {
  const startMs = performance.now();
  const openOptions: OpenTaskOptions = {
    model,
    seed: options.seed ?? 1234,
    numShots: options.numShots,
    temperature: options.temperature,
  };
  // All data is looked for before anything is computed.
  const planned: PlannedTask[] = [];
  for (const task of tasks) planned.push(await plan(task, store, { ...options, openOptions }));
  const totals = {
    numDone: 0,
    numAll: planned.reduce((sum, entry) => sum + numRequestsOf(entry), 0),
  };
  const { requestsAtOnce = 2048 } = options;
  await runTasks(model, planned, { ...options, requestsAtOnce }, totals);
  const results = planned.map((entry) => resultOf(entry, { ...options, openOptions }));
  const isPartial = results.some(({ samples, numScored }) => samples.length < numScored);
  return {
    tasks: results,
    groups: groups.map((group) => groupResult(group, groups, results)),
    isPartial,
    seconds: (performance.now() - startMs) / 1000,
  };
}

async function plan(
  task: Task,
  store: DataStore,
  { limit, logFolder, openOptions }: EvaluateOptions & { openOptions: OpenTaskOptions },
): Promise<PlannedTask> {
  const open = await task.open(store, openOptions);
  const { numSamples } = open;
  const wanted = limit === undefined ? numSamples : limit < 1 ? Math.ceil(limit * numSamples) : limit;
  if (logFolder !== undefined) makeFolder("eval", logFolder);
  const log = logFolder === undefined ? undefined : new SampleLog(join(logFolder, `${task.name}.jsonl`));
  const done = new Map<number, LoggedSample>();
  for (const entry of log?.read() ?? []) done.set(entry.index, entry);
  return { task, open, numScored: Math.min(wanted, numSamples), log, done };
}

/** As if all samples had as many as the first: what they have is found as they are read. */
function numRequestsOf({ open, numScored }: PlannedTask): number {
  return numScored === 0 ? 0 : open.sample(0).requests.length * numScored;
}

interface Totals {
  /** Answered, those of pieces that are not logged yet included. */
  numDone: number;
  numAll: number;
  /** Of any task: the others stop after the piece they are at. */
  failure?: { error: unknown };
}

/**
 * Tasks that run at once, in order: the beginning of one, which is one prompt, and its last requests leave the model's steps half empty.
 * More than the fewest run while those that do have few requests.
 */
const fewestTasks = 2;
const mostTasks = 4;

/** Throws the first error when the pieces that were begun have ended. */
async function runTasks(
  model: LanguageModel,
  planned: readonly PlannedTask[],
  options: EvaluateOptions & { requestsAtOnce: number },
  totals: Totals,
): Promise<void> {
  const { requestsAtOnce, signal } = options;
  const running = new Set<Promise<void>>();
  let numRequests = 0;
  for (const entry of planned) {
    while (running.size >= (numRequests < requestsAtOnce ? mostTasks : fewestTasks))
      await Promise.race(running);
    if (totals.failure !== undefined || signal?.aborted === true) break;
    const numOwn = Math.min(numRequestsOf(entry), requestsAtOnce);
    numRequests += numOwn;
    const run = runTask(model, entry, options, totals)
      .catch((error: unknown) => {
        totals.failure ??= { error };
      })
      .finally(() => {
        numRequests -= numOwn;
        running.delete(run);
      });
    running.add(run);
  }
  await Promise.all(running);
  if (totals.failure !== undefined) throw totals.failure.error;
}

async function runTask(
  model: LanguageModel,
  { task, open, numScored, log, done }: PlannedTask,
  { requestsAtOnce, signal, onProgress }: EvaluateOptions & { requestsAtOnce: number },
  totals: Totals,
): Promise<void> {
  let numReported = 0;
  const report = (numDone: number): void => {
    totals.numDone += numDone - numReported;
    numReported = numDone;
    onProgress?.({ task: task.name, numDoneRequests: totals.numDone, numRequests: totals.numAll });
  };
  const numExpected = numScored === 0 ? 0 : open.sample(0).requests.length;
  for (let next = 0; next < numScored;) {
    if (signal?.aborted === true || totals.failure !== undefined) return;
    const piece: Sample[] = [];
    let numRequests = 0;
    for (; next < numScored && numRequests < requestsAtOnce; next++) {
      const sample = open.sample(next);
      totals.numAll += sample.requests.length - numExpected;
      const logged = done.get(sample.index);
      if (logged === undefined) {
        piece.push(sample);
        numRequests += sample.requests.length;
      } else {
        checkSame(task, sample, logged);
        totals.numDone += sample.requests.length;
      }
    }
    const answers = await ask(
      model,
      piece.flatMap(({ requests }) => requests),
      { signal, onProgress: report },
    );
    if (answers === undefined) return;
    let at = 0;
    const entries = piece.map((sample) => {
      const own = answers.slice(at, at + sample.requests.length);
      at += sample.requests.length;
      return logEntry(sample, own, sample.score(own));
    });
    log?.append(entries);
    for (const entry of entries) done.set(entry.index, entry);
    report(numRequests);
    numReported = 0;
  }
}

function checkSame(task: Task, sample: Sample, logged: LoggedSample): void {
  if (promptHash(sample.requests) === logged.promptHash) return;
  throw new ConfigError(
    "eval",
    `expected the log of ${task.name} to hold the same prompts, got another one at sample ${sample.index}`,
    { hint: "settings or data changed: choose another --output" },
  );
}

function resultOf(
  { task, open, numScored, done }: PlannedTask,
  {
    bootstrapIterations = defaultBootstrapIterations,
    openOptions,
    numShots,
  }: EvaluateOptions & { openOptions: OpenTaskOptions },
): TaskResult {
  const samples = [...done.values()].toSorted((a, b) => a.index - b.index).slice(0, numScored);
  const figures = Object.fromEntries(
    task.metrics.map((metric) => {
      const key = metricKey(metric);
      const values = samples.map((sample) => sample.values[key]);
      return [key, aggregate(metric.aggregation, values, { bootstrapIterations })];
    }),
  );
  return {
    task,
    numShots: numShots ?? task.numShots,
    numSamples: open.numSamples,
    numScored,
    figures,
    details: task.describe(openOptions),
    samples,
  };
}

function groupResult(
  group: TaskGroup,
  groups: readonly TaskGroup[],
  results: readonly TaskResult[],
): GroupResult {
  // Micro averages weigh single tasks; macro averages weigh the members as they are named.
  const leaves = (name: string): string[] => {
    const inner = groups.find((candidate) => candidate.name === name);
    return inner === undefined ? [name] : inner.members.flatMap(leaves);
  };
  const members = group.members
    .flatMap(leaves)
    .flatMap((name) => results.filter(({ task }) => task.name === name));
  const keys = Object.keys(members[0]?.figures ?? {});
  return {
    group,
    figures: Object.fromEntries(
      keys.map((key) => [
        key,
        combine(
          members.map(({ figures }) => figures[key]),
          group.average,
        ),
      ]),
    ),
  };
}
