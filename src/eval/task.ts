/**
 * What a task is. A task's file gives a typed record to `defineTask` (define.ts), which makes of it a `Task`: something that opens
 * its data, gives the requests of each sample, and scores the answers. Types only.
 */
import type { LanguageModel, Prompt, SamplingOptions, Tokenizer } from "../text/index.ts";
import type { DataSource, DataStore } from "./data/store.ts";
import type { Filter } from "./filters.ts";
import type { Aggregation, SampleValue } from "./metrics/aggregate.ts";

/** What a sample asks of the model. */
export type TaskRequest =
  | {
      kind: "loglikelihood";
      context: Prompt;
      continuation: Prompt;
      /** The texts behind ids, for logs. */
      texts?: { context: string; continuation: string };
    }
  | { kind: "rolling"; text: string }
  | {
      kind: "generate";
      prompt: string;
      stop: readonly string[];
      maxNewTokens: number;
      sampling: SamplingOptions;
    };

/** What the model said to a request. */
export type Answer =
  | { kind: "likelihood"; logprob: number; isGreedy: boolean; numTokens: number }
  | { kind: "text"; text: string };

/** What a task needs of a model: prompt log-probabilities, those of whole texts, or text alone. */
export type Ability = "loglikelihood" | "rolling" | "generate";

export interface MetricInfo {
  /** As the reference harness calls it: "acc", "acc_norm", "exact_match", ... */
  readonly name: string;
  /** Which filter's predictions it judges; "none" without filters. */
  readonly filter: string;
  readonly aggregation: Aggregation;
  readonly higherIsBetter: boolean;
  /** Shown as a percentage. */
  readonly isShare: boolean;
}

export interface SampleScore {
  /** By `metricKey`. */
  values: Record<string, SampleValue>;
  /** What the model chose or said, for people: a choice's place, or the filtered text. */
  prediction: string;
  isCorrect: boolean | undefined;
}

export interface Sample {
  /** Place among the split's documents. */
  readonly index: number;
  /** The row, for logs. */
  readonly document: unknown;
  /** The right answer, for people. */
  readonly target: string;
  readonly requests: readonly TaskRequest[];
  score(answers: readonly Answer[]): SampleScore;
}

export interface OpenTask {
  readonly numSamples: number;
  sample(index: number): Sample;
}

export interface OpenTaskOptions {
  /** Examples before each question; undefined: the task's own number. */
  numShots?: number | undefined;
  /** Seed of the draw of examples, and of sampled answers. */
  seed: number;
  model: Pick<LanguageModel, "tokenizer" | "maxSequenceTokens">;
  /** Replaces the temperature of tasks that sample. */
  temperature?: number | undefined;
}

export interface Task {
  readonly name: string;
  /** As short as a table wants it. */
  readonly title: string;
  readonly version: number;
  readonly numShots: number;
  readonly ability: Ability;
  readonly metrics: readonly MetricInfo[];
  readonly source: DataSource<unknown>;
  readonly split: string;
  /** Name of the task whose second column this is (NVIDIA's copy of the harness). */
  readonly variantOf: string | undefined;
  /** Runs code that the model wrote. */
  readonly runsCode: boolean;
  /** Facts about the run that the report should show, e.g. the ids of MMLU's letters. */
  describe(options: OpenTaskOptions): Readonly<Record<string, unknown>>;
  open(store: DataStore, options: OpenTaskOptions): Promise<OpenTask>;
}

/** Several tasks with one figure. */
export interface TaskGroup {
  readonly name: string;
  readonly title: string;
  /** Names of tasks and groups. */
  readonly members: readonly string[];
  /** "micro": per question; "macro": each member counts the same. */
  readonly average: "micro" | "macro";
  readonly version: number;
}

export type ChoiceMetric = "acc" | "acc_norm" | "acc_bytes" | "acc_norm_tokens" | "exact_match" | "mass";

/** The model picks the likeliest of several continuations. */
export interface ChoiceRequest<Row> {
  readonly kind: "choice";
  readonly choices: (row: Row) => readonly string[];
  /** Where the choices stand inside the contexts and share one continuation (WinoGrande). */
  readonly contexts?: (row: Row) => readonly string[];
  readonly continuation?: (row: Row) => string;
  /** Places of the right choices. */
  readonly gold: (row: Row) => readonly number[];
  readonly metrics: readonly ChoiceMetric[];
  /**
   * "jointly" (default): context and choice encoded together, as the reference harness does. "apart": each alone, as NVIDIA's copy
   * of the harness does. "last-token": apart, and of the choice its last token alone, as MMLU's own implementation does.
   */
  readonly encoding?: "jointly" | "apart" | "last-token";
}

/** The model scores one continuation. */
export interface ContinuationRequest<Row> {
  readonly kind: "continuation";
  readonly continuation: (row: Row) => string;
  readonly encoding?: "jointly" | "apart";
}

/** The model scores a whole text. */
export interface RollingRequest<Row> {
  readonly kind: "rolling";
  readonly text: (row: Row) => string;
  /** The text whose words and bytes the likelihood is spread over. */
  readonly original: (row: Row) => string;
}

export interface GenerationMetric<Row> {
  readonly aggregation: Aggregation;
  readonly higherIsBetter: boolean;
  readonly isShare: boolean;
  readonly judge: (prediction: string, row: Row) => SampleValue;
}

/** The model goes on until a stop string. */
export interface GenerateRequest<Row> {
  readonly kind: "generate";
  readonly stop: readonly string[];
  readonly maxNewTokens: number;
  /** 0 (default) is greedy. */
  readonly temperature?: number;
  /** Answers to each question, each with a seed of its own. */
  readonly repeats?: number;
  readonly filters: Readonly<Record<string, readonly Filter<Row>[]>>;
  readonly metrics: Readonly<Record<string, GenerationMetric<Row>>>;
  /** Runs code that the model wrote. */
  readonly runsCode?: boolean;
}

export type RequestRule<Row> =
  | ChoiceRequest<Row>
  | ContinuationRequest<Row>
  | RollingRequest<Row>
  | GenerateRequest<Row>;

export interface FewShotRule<Row> {
  readonly count: number;
  /** Where examples are drawn from: a split, or the examples themselves. */
  readonly split?: string;
  readonly examples?: readonly Row[];
  /** "random" (default): drawn as the reference harness draws; "first": the first ones, always. */
  readonly order?: "random" | "first";
  /** So many rows of the split are passed over. */
  readonly skip?: number;
  /** Where the split is missing, the scored split's own first rows, which are then left out of the score. */
  readonly fromScoredSplit?: boolean;
  /** Examples are dropped one by one while the prompt is longer than the model takes. */
  readonly dropWhenTooLong?: boolean;
}

export interface TaskDefinition<Row> {
  readonly name: string;
  readonly title: string;
  readonly version: number;
  readonly source: DataSource<Row>;
  /** The split that is scored. */
  readonly split: string;
  /** Only the rows with this value in this field. */
  readonly only?: { readonly field: string; readonly value: string };
  /** Before the examples. */
  readonly preamble?: (row: Row) => string;
  readonly prompt: (row: Row) => string;
  /** What follows the prompt in an example. */
  readonly answer: (row: Row) => string;
  /** Between prompt and answer; default one space. */
  readonly delimiter?: string;
  /** After each example; default an empty line. */
  readonly separator?: string;
  readonly shots?: FewShotRule<Row>;
  readonly request: RequestRule<Row>;
  readonly variantOf?: string;
  readonly describe?: (tokenizer: Tokenizer | undefined) => Readonly<Record<string, unknown>>;
}

/** The name of a metric in results, as the reference harness writes it: "acc,none". */
export function metricKey({ name, filter }: Pick<MetricInfo, "name" | "filter">): string {
  return `${name},${filter}`;
}
