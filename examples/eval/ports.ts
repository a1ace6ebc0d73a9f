/**
 * Tasks of your own: one file with their data, prompts and scores. Two of them here, over the questions in data/ports:
 *
 *   nautilus eval --model runs/demo --task-file examples/eval/ports.ts --data examples/eval/data --tasks ports,ports_written
 *
 * In a project of your own import from "nautilus-llm/eval" instead.
 */
import { z } from "zod";
import {
  bestOver,
  defineTask,
  exactMatch,
  f1,
  mapAnswers,
  takeFirst,
  usualFiles,
} from "../../src/eval/index.ts";

/** What a row must hold; a malformed one is an error that names its file and line. */
const row = z.object({
  question: z.string(),
  choices: z.array(z.string()).min(2),
  answer: z.number().int().min(0),
});
type Row = z.output<typeof row>;

const source = {
  // Below --data; test.jsonl, test.csv, test.parquet and others are looked for. A data set of the hub also names
  // `hub: { repository: "org/name", configuration, revision }`, and --fetch brings it.
  folder: "ports",
  splits: { train: usualFiles("train"), test: usualFiles("test") },
  row,
  homepage: "examples/eval/data/ports",
  licence: "Apache-2.0",
};
const definition = {
  version: 1,
  source,
  split: "test",
  prompt: ({ question }: Row) => `Question: ${question}\nAnswer:`,
  answer: ({ choices, answer }: Row) => choices[answer],
  shots: { count: 2, split: "train", order: "first" },
} as const;

/** Which choice is the likeliest after the question? */
export const ports = defineTask<Row>({
  ...definition,
  name: "ports",
  title: "Ports",
  request: {
    kind: "choice",
    choices: ({ choices }) => choices,
    gold: ({ answer }) => [answer],
    metrics: ["acc", "acc_norm"],
  },
});

const measured = (measure: (prediction: string, right: string) => number) => ({
  aggregation: "mean" as const,
  higherIsBetter: true,
  isShare: true,
  judge: (prediction: string, { choices, answer }: Row) => bestOver(measure, prediction, [choices[answer]]),
});

/** The same questions, answered in words up to the end of the line. */
export const portsWritten = defineTask<Row>({
  ...definition,
  name: "ports_written",
  title: "Ports, written",
  request: {
    kind: "generate",
    stop: ["\n"],
    maxNewTokens: 16,
    filters: { none: [takeFirst(), mapAnswers((text) => text.trim())] },
    metrics: { exact_match: measured(exactMatch), f1: measured(f1) },
  },
});
