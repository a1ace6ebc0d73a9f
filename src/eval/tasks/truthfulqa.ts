/**
 * TruthfulQA (Lin et al., 2021), multiple choice: mc1 asks whether the one true answer is the likeliest, mc2 which share of the
 * probability the true answers have.
 */
import { z } from "zod";
import { usualFiles } from "../data/store.ts";
import { defineTask } from "../define.ts";
import { truthfulqaExamples } from "./texts/truthfulqaExamples.ts";

const targets = z.object({ choices: z.array(z.string()).min(1), labels: z.array(z.number().int()) });
const row = z.object({ question: z.string(), mc1_targets: targets, mc2_targets: targets });
type Row = z.output<typeof row>;

const before = truthfulqaExamples.map(([question, answer]) => `Q: ${question}\nA: ${answer}\n\n`).join("");

const places = (labels: readonly number[]): number[] =>
  labels.flatMap((label, index) => (label === 1 ? [index] : []));

const definition = {
  source: {
    folder: "truthfulqa",
    splits: { validation: [...usualFiles("validation", "multiple_choice"), "multiple_choice.jsonl"] },
    row,
    homepage: "https://huggingface.co/datasets/truthfulqa/truthful_qa (configuration multiple_choice)",
    licence: "Apache-2.0",
    hub: { repository: "truthfulqa/truthful_qa", configuration: "multiple_choice" },
  },
  split: "validation",
  prompt: ({ question }: Row) => `${before}Q: ${question}\nA:`,
  answer: ({ mc1_targets }: Row) => mc1_targets.choices[0],
} as const;

/** The right answer stands first. */
export const truthfulqaMc1 = defineTask<Row>({
  ...definition,
  name: "truthfulqa_mc1",
  title: "TruthfulQA mc1",
  version: 2,
  request: { kind: "choice", choices: (doc) => doc.mc1_targets.choices, gold: () => [0], metrics: ["acc"] },
});

export const truthfulqaMc2 = defineTask<Row>({
  ...definition,
  name: "truthfulqa_mc2",
  title: "TruthfulQA mc2",
  version: 3,
  request: {
    kind: "choice",
    choices: (doc) => doc.mc2_targets.choices,
    gold: (doc) => places(doc.mc2_targets.labels),
    metrics: ["mass"],
  },
});
