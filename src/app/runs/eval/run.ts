/** `nautilus eval`: opens model and data, runs the tasks, writes logs, results and reports. */
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { ConfigError, formatCount, makeFolder, messageOf, note, writeText } from "../../../base/index.ts";
import type { QuantisedFormat } from "../../../device/index.ts";
import type { CacheFormat } from "../../../models/index.ts";
import {
  columnNotes,
  DataStore,
  evaluate,
  htmlReport,
  markdownTable,
  modelIndex,
  reportRows,
  resultsJson,
  TaskRegistry,
} from "../../../eval/index.ts";
import type { EvaluationResult, MmluWay, Selection, Task } from "../../../eval/index.ts";
import { EngineLanguageModel } from "../../../infer/index.ts";
import { loadTokenizer } from "../../../text/index.ts";
import type { LanguageModel } from "../../../text/index.ts";
import { adapterIdentity } from "../adapter/adapter.ts";
import { openEngine } from "../../api/openEngine.ts";
import { openServedModel } from "../../client/servedLanguageModel.ts";
import { packageVersion } from "../../version.ts";
import { ProgressLine } from "../../terminal/progress.ts";
import { stopSignal } from "../../terminal/signals.ts";
import { fetchFromHub } from "./fetchFromHub.ts";
import { checkSettings } from "./settings.ts";

export interface EvalCliOptions {
  model?: string;
  url?: string;
  modelName?: string;
  adapter?: string;
  tokenizer?: string;
  maxLength?: number;
  apiKey?: string;
  tasks?: string;
  data?: string[];
  fetch?: boolean;
  taskFile?: string[];
  output?: string;
  limit?: number;
  numFewshot?: number;
  mmlu: MmluWay;
  nvidia: boolean;
  temperature?: number;
  batchTokens?: number;
  bootstrapIterations: number;
  seed: number;
  runCode?: boolean;
  precision?: "f32" | "bf16";
  mmap: boolean;
  quantise?: QuantisedFormat;
  kvCache: CacheFormat;
  device: "auto" | "cpu" | "cuda" | "reference";
  threads?: number;
  json?: boolean;
}

export async function evalCommand(options: EvalCliOptions): Promise<void> {
  const registry = new TaskRegistry(await ownTasks(options.taskFile ?? []));
  const names = (options.tasks ?? "").split(",").filter((name) => name !== "");
  if (names.length === 0) {
    throw new ConfigError("eval", "expected --tasks with at least one name, got none", {
      hint: "'nautilus eval list' names them all",
    });
  }
  const selection = registry.select(names, options.mmlu);
  refuseCode(selection, options);
  if ((options.model === undefined) === (options.url === undefined))
    throw new ConfigError(
      "eval",
      "expected either --model or --url, got " + (options.url === undefined ? "neither" : "both"),
    );
  if (options.url !== undefined) refuseOwnFormats(options);
  const store = new DataStore({
    folders: options.data ?? ["eval-data"],
    fetch: options.fetch === true ? fetchFromHub() : undefined,
  });
  if (options.url !== undefined) {
    const tokenizer = options.tokenizer === undefined ? undefined : loadTokenizer(options.tokenizer);
    const model = await openServedModel({
      url: options.url,
      name: options.modelName,
      apiKey: options.apiKey ?? process.env["NAUTILUS_API_KEY"],
      tokenizer,
      maxSequenceTokens: options.maxLength,
    });
    refuseLikelihoods(selection, model, registry);
    await run(model.model, selection, { store, registry, options, device: options.url });
    return;
  }
  await using open = await openEngine({
    model: options.model ?? "",
    device: options.device,
    threads: options.threads,
    precision: options.precision,
    quantise: options.quantise,
    mmap: options.mmap,
    kvCache: options.kvCache,
    adapter: options.adapter,
    tokenizer: options.tokenizer,
    maxStepRows: options.batchTokens,
    favours: "rate",
  });
  const { engine, tokenizer, path } = open;
  const model = new EngineLanguageModel(engine, { name: path, tokenizer });
  await run(model, selection, { store, registry, options, device: engine.info.device });
  const { numPromptTokens, numCachedPromptTokens } = engine.statistics();
  if (numPromptTokens > 0) {
    const share = numCachedPromptTokens / numPromptTokens;
    note(
      `${formatCount(numPromptTokens)} tokens of prompts, ${(100 * share).toFixed(1)} % of them found in the cache`,
    );
  }
}

/** Undefined where it is the model's own dtype, as before there was a choice. */
function chosenCache({ kvCache }: EvalCliOptions): CacheFormat | undefined {
  return kvCache === "auto" ? undefined : kvCache;
}

/** What a server computes with was said to it when it was started. Throws ConfigError. */
function refuseOwnFormats(options: EvalCliOptions): void {
  const { adapter, precision, quantise } = options;
  const given = Object.entries({ adapter, precision, quantise, "kv-cache": chosenCache(options) });
  const [name] = given.find(([, value]) => value !== undefined) ?? [];
  if (name === undefined) return;
  throw new ConfigError("eval", `expected --${name} with --model, got it with --url`, {
    hint: "'nautilus serve' takes it; a server's adapters are names of its models",
  });
}

/** Tasks of a user's own file: every export that is one, or lists of them. Throws ConfigError. */
async function ownTasks(paths: readonly string[]): Promise<Task[]> {
  const tasks: Task[] = [];
  for (const path of paths) {
    let module: unknown;
    try {
      module = await import(pathToFileURL(resolve(path)).href);
    } catch (error) {
      throw new ConfigError("eval", `expected a module with tasks at ${path}, got ${messageOf(error)}`, {
        cause: error,
      });
    }
    const found = Object.values(module ?? {})
      .flat()
      .filter(isTask);
    if (found.length === 0) {
      throw new ConfigError("eval", `expected exports made by defineTask in ${path}, got none`, {
        hint: "import { defineTask } from 'nautilus-llm/eval'",
      });
    }
    tasks.push(...found);
  }
  return tasks;
}

function isTask(value: unknown): value is Task {
  return (
    typeof value === "object" &&
    value !== null &&
    "open" in value &&
    typeof value.open === "function" &&
    "metrics" in value &&
    Array.isArray(value.metrics)
  );
}

function refuseCode({ tasks }: Selection, { runCode }: EvalCliOptions): void {
  const [first] = tasks.filter(({ runsCode }) => runsCode);
  if (first === undefined || runCode === true) return;
  throw new ConfigError("eval", `expected --run-code for ${first.name}, got none`, {
    hint: "it runs code that the model writes, in a process with limits but no sandbox: use a machine without anything of value",
  });
}

/** A server without prompt log-probabilities can still generate. */
function refuseLikelihoods(
  { tasks }: Selection,
  { hasPromptLogprobs, reason }: { hasPromptLogprobs: boolean; reason: string },
  registry: TaskRegistry,
): void {
  const [first] = tasks.filter(({ ability }) => ability !== "generate");
  if (first === undefined || hasPromptLogprobs) return;
  const able = registry.tasks
    .filter(({ ability }) => ability === "generate")
    .map(({ name }) => name.replace(/^(mmlu_helm|tydiqa_goldp|flores|xlsum)_.*/, "$1"));
  throw new ConfigError(
    "eval",
    `expected a server that gives log-probabilities of prompts for ${first.name}, got one that does not: ${reason}`,
    { hint: `tasks that generate can still run: ${[...new Set(able)].join(", ")}` },
  );
}

async function run(
  model: LanguageModel,
  selection: Selection,
  {
    store,
    registry,
    options,
    device,
  }: { store: DataStore; registry: TaskRegistry; options: EvalCliOptions; device: string },
): Promise<void> {
  const variants =
    options.nvidia && model.tokenizer !== undefined ? registry.variantsOf(selection.tasks) : [];
  const progress = new ProgressLine();
  using stop = stopSignal("stopping after this batch; the same command with the same --output goes on");
  const result = await evaluate(model, { ...selection, tasks: [...selection.tasks, ...variants] }, store, {
    numShots: options.numFewshot,
    limit: options.limit,
    seed: options.seed,
    temperature: options.temperature,
    bootstrapIterations: options.bootstrapIterations,
    logFolder: options.output === undefined ? undefined : logFolder(options.output, model, options),
    signal: stop.signal,
    onProgress: ({ task, numDoneRequests, numRequests }) =>
      progress.update(
        task.padEnd(28).slice(0, 28),
        numDoneRequests / Math.max(1, numRequests),
        `${numDoneRequests} of ${numRequests} requests`,
      ),
  });
  progress.finish();
  const rows = reportRows(result, selection.names);
  const json = resultsJson(result, {
    modelName: model.name,
    modelArguments: options.model === undefined ? `url=${options.url}` : localArguments(options),
    device,
    limit: options.limit,
    bootstrapIterations: options.bootstrapIterations,
    seed: options.seed,
    version: packageVersion(),
    maxLength: model.maxSequenceTokens,
    date: Date.now() / 1000,
  });
  if (options.output !== undefined)
    writeReports(options.output, { result, rows, json, modelName: model.name });
  if (options.json !== true && columnNotes(rows) !== "") note(columnNotes(rows));
  process.stdout.write(
    options.json === true ? `${JSON.stringify(json, undefined, 2)}\n` : markdownTable(rows),
  );
  if (stop.signal.aborted) process.exitCode = 130;
}

/** As the reference harness writes them: `model=…,adapter=…`. */
function localArguments(options: EvalCliOptions): string {
  const { model, adapter, quantise } = options;
  return Object.entries({ model, adapter, quantise, kvCache: chosenCache(options) })
    .flatMap(([key, value]) => (value === undefined ? [] : [`${key}=${value}`]))
    .join(",");
}

/** The folder of logs, after a check that what is there was made with the same settings. Throws ConfigError. */
function logFolder(output: string, model: LanguageModel, options: EvalCliOptions): string {
  const folder = join(output, "samples");
  makeFolder("eval", folder);
  const settings = {
    model: model.name,
    numFewshot: options.numFewshot,
    seed: options.seed,
    temperature: options.temperature,
    precision: options.precision,
    quantise: options.quantise,
    kvCache: chosenCache(options),
    adapter: options.adapter === undefined ? undefined : adapterIdentity(options.adapter),
  };
  checkSettings(join(output, "settings.json"), settings);
  return folder;
}

function writeReports(
  output: string,
  {
    result,
    rows,
    json,
    modelName,
  }: { result: EvaluationResult; rows: ReturnType<typeof reportRows>; json: unknown; modelName: string },
): void {
  const write = (name: string, text: string): void => writeText("eval", join(output, name), text);
  write("results.json", `${JSON.stringify(json, undefined, 2)}\n`);
  write("results.md", markdownTable(rows));
  write("model-index.yaml", modelIndex(modelName, rows));
  write("report.html", htmlReport(result, rows, { modelName }));
  note(`report: ${join(output, "report.html")}`);
}
