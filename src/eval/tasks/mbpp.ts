/** MBPP (Austin et al., 2021): short Python programs from a sentence and three tests, after three examples. */
import { z } from "zod";
import { usualFiles } from "../data/store.ts";
import { defineTask } from "../define.ts";
import { takeFirst } from "../filters.ts";
import { runPython } from "../metrics/runPython.ts";

const row = z.object({ text: z.string(), code: z.string(), test_list: z.array(z.string()).min(3) });
type Row = z.output<typeof row>;

const tests = ({ test_list }: Row): string => test_list.slice(0, 3).join("\n");
const files = (split: string): string[] => usualFiles(split, "full");

export const mbpp = defineTask<Row>({
  name: "mbpp",
  title: "MBPP",
  version: 1,
  source: {
    folder: "mbpp",
    splits: { prompt: files("prompt"), test: files("test") },
    row,
    homepage: "https://huggingface.co/datasets/google-research-datasets/mbpp",
    licence: "CC BY 4.0",
    hub: { repository: "google-research-datasets/mbpp", configuration: "full" },
  },
  split: "test",
  prompt: (doc) =>
    `You are an expert Python programmer, and here is your task: ${doc.text} Your code should pass these tests:\n\n${tests(doc)}\n[BEGIN]\n`,
  answer: ({ code }) => `${code}\n[DONE]`,
  delimiter: "",
  // The examples of the paper, task ids 2 to 4, which stand in the data set's own split for prompts after id 1.
  shots: { count: 3, split: "prompt", order: "first", skip: 1 },
  request: {
    kind: "generate",
    runsCode: true,
    stop: ["[DONE]"],
    maxNewTokens: 256,
    filters: { none: [takeFirst()] },
    metrics: {
      pass_at_1: {
        aggregation: "mean",
        higherIsBetter: true,
        isShare: true,
        judge: (program, doc) => runPython(`${program}\n${tests(doc)}`),
      },
    },
  },
});
