/** OpenBookQA (Mihaylov et al., 2018): questions that need a fact of elementary science and common sense. */
import { z } from "zod";
import { usualFiles } from "../data/store.ts";
import { defineTask } from "../define.ts";

const row = z
  .object({
    question_stem: z.string(),
    choices: z.object({ text: z.array(z.string()), label: z.array(z.string()) }),
    answerKey: z.string(),
  })
  .transform(({ question_stem, choices, answerKey }) => ({
    stem: question_stem,
    choices: choices.text,
    gold: choices.label.indexOf(answerKey.trimStart()),
  }));
type Row = z.output<typeof row>;

const files = (split: string): string[] => usualFiles(split, "main");

export const openbookqa = defineTask<Row>({
  name: "openbookqa",
  title: "OpenBookQA",
  version: 1,
  source: {
    folder: "openbookqa",
    splits: { train: files("train"), validation: files("validation"), test: files("test") },
    row,
    homepage: "https://huggingface.co/datasets/allenai/openbookqa",
    licence: "Apache-2.0",
    hub: { repository: "allenai/openbookqa", configuration: "main" },
  },
  split: "test",
  prompt: ({ stem }) => stem,
  answer: ({ choices, gold }) => choices[gold],
  request: {
    kind: "choice",
    choices: ({ choices }) => choices,
    gold: ({ gold }) => [gold],
    metrics: ["acc", "acc_norm"],
  },
});
