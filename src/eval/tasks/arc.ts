/** ARC (Clark et al., 2018): science questions of American schools, an easy set and a challenge set. */
import { z } from "zod";
import { usualFiles } from "../data/store.ts";
import { defineTask } from "../define.ts";

/** As the hub publishes it, and with plain choices and the right one's place. */
const row = z.union([
  z
    .object({
      question: z.string(),
      choices: z.object({ text: z.array(z.string()), label: z.array(z.string()) }),
      answerKey: z.string(),
    })
    .transform(({ question, choices, answerKey }) => ({
      question,
      choices: choices.text,
      gold: choices.label.indexOf(answerKey),
    })),
  z.object({ question: z.string(), choices: z.array(z.string()).min(2), gold: z.number().int().min(0) }),
]);
type Row = z.output<typeof row>;

function arcSource(folder: string, configuration: string) {
  const files = (split: string): string[] => usualFiles(split, configuration);
  return {
    folder,
    splits: { train: files("train"), validation: files("validation"), test: files("test") },
    row,
    homepage: "https://huggingface.co/datasets/allenai/ai2_arc",
    licence: "CC BY-SA 4.0",
    hub: { repository: "allenai/ai2_arc", configuration },
  };
}

const definition = {
  version: 1,
  split: "test",
  prompt: ({ question }: Row) => `Question: ${question}\nAnswer:`,
  answer: ({ choices, gold }: Row) => choices[gold],
  request: {
    kind: "choice",
    choices: ({ choices }: Row) => choices,
    gold: ({ gold }: Row) => [gold],
    metrics: ["acc", "acc_norm"],
  },
} as const;

export const arcEasy = defineTask<Row>({
  ...definition,
  name: "arc_easy",
  title: "ARC-Easy",
  source: arcSource("arc_easy", "ARC-Easy"),
});

export const arcChallenge = defineTask<Row>({
  ...definition,
  name: "arc_challenge",
  title: "ARC-Challenge",
  source: arcSource("arc_challenge", "ARC-Challenge"),
});
