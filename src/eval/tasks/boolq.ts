/** BoolQ (Clark et al., 2019): yes or no questions about a passage, as SuperGLUE publishes them. */
import { z } from "zod";
import { usualFiles } from "../data/store.ts";
import { defineTask } from "../define.ts";

const row = z.union([
  z.object({ passage: z.string(), question: z.string(), label: z.coerce.number().int().min(0).max(1) }),
  // SuperGLUE's own files.
  z
    .object({ passage: z.string(), question: z.string(), label: z.boolean() })
    .transform((doc) => ({ ...doc, label: doc.label ? 1 : 0 })),
  z
    .object({ passage: z.string(), question: z.string(), answer: z.boolean() })
    .transform(({ passage, question, answer }) => ({ passage, question, label: answer ? 1 : 0 })),
]);
type Row = z.output<typeof row>;

const answers = ["no", "yes"];

export const boolq = defineTask<Row>({
  name: "boolq",
  title: "BoolQ",
  version: 2,
  source: {
    folder: "boolq",
    splits: {
      train: usualFiles("train", "boolq"),
      validation: [...usualFiles("validation", "boolq"), "val.jsonl", "dev.jsonl"],
    },
    row,
    homepage: "https://huggingface.co/datasets/aps/super_glue (configuration boolq)",
    licence: "CC BY-SA 3.0",
    hub: { repository: "aps/super_glue", configuration: "boolq" },
  },
  split: "validation",
  prompt: ({ passage, question }) => `${passage}\nQuestion: ${question}?\nAnswer:`,
  answer: ({ label }) => answers[label],
  request: { kind: "choice", choices: () => answers, gold: ({ label }) => [label], metrics: ["acc"] },
});
