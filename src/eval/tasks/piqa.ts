/** PIQA (Bisk et al., 2019): which of two ways reaches an everyday goal. Solutions keep the spaces at their ends. */
import { z } from "zod";
import { usualFiles } from "../data/store.ts";
import { defineTask } from "../define.ts";

const row = z.object({
  goal: z.string(),
  sol1: z.string(),
  sol2: z.string(),
  label: z.coerce.number().int().min(0).max(1),
});
type Row = z.output<typeof row>;

export const piqaSource = {
  folder: "piqa",
  splits: {
    train: [...usualFiles("train"), "train.jsonl"],
    validation: [...usualFiles("validation"), "valid.jsonl"],
  },
  labels: {
    train: { field: "label", files: ["train-labels.lst"] },
    validation: { field: "label", files: ["valid-labels.lst"] },
  },
  row,
  homepage: "https://yonatanbisk.com/piqa (or https://huggingface.co/datasets/baber/piqa)",
  licence: "AFL 3.0",
  hub: { repository: "baber/piqa" },
};

const solutions = ({ sol1, sol2 }: Row): string[] => [sol1, sol2];

const definition = {
  title: "PIQA",
  version: 1,
  source: piqaSource,
  split: "validation",
  answer: (doc: Row) => solutions(doc)[doc.label],
};

const request = { kind: "choice", choices: solutions, gold: ({ label }: Row) => [label] } as const;

export const piqa = defineTask<Row>({
  ...definition,
  name: "piqa",
  prompt: ({ goal }) => `Question: ${goal}\nAnswer:`,
  request: { ...request, metrics: ["acc", "acc_norm"] },
});

/** The bare goal is the context there. */
export const piqaNvidia = defineTask<Row>({
  ...definition,
  name: "piqa_nvidia",
  variantOf: "piqa",
  prompt: ({ goal }) => goal,
  request: { ...request, metrics: ["acc", "acc_norm_tokens"], encoding: "apart" },
});
