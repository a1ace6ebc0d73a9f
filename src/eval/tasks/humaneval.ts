/** HumanEval (Chen et al., 2021): Python functions from their heading and documentation; judged by running hidden tests. */
import { z } from "zod";
import { usualFiles } from "../data/store.ts";
import { defineTask } from "../define.ts";
import { mapAnswers, takeFirst } from "../filters.ts";
import { runPython } from "../metrics/runPython.ts";

const row = z.object({
  task_id: z.string(),
  prompt: z.string(),
  test: z.string(),
  entry_point: z.string(),
});
type Row = z.output<typeof row>;

export const humaneval = defineTask<Row>({
  name: "humaneval",
  title: "HumanEval",
  version: 1,
  source: {
    folder: "humaneval",
    splits: { test: [...usualFiles("test", "openai_humaneval"), "HumanEval.jsonl", "HumanEval.jsonl.gz"] },
    row,
    homepage:
      "https://github.com/openai/human-eval (or https://huggingface.co/datasets/openai/openai_humaneval)",
    licence: "MIT",
    hub: { repository: "openai/openai_humaneval", configuration: "openai_humaneval" },
  },
  split: "test",
  prompt: ({ prompt }) => prompt,
  answer: ({ test, entry_point }) => `${test}\ncheck(${entry_point})`,
  request: {
    kind: "generate",
    runsCode: true,
    stop: ["\nclass", "\ndef", "\n#", "\nif", "\nprint"],
    maxNewTokens: 1024,
    filters: { create_test: [takeFirst(), mapAnswers((text, { prompt }) => prompt + text)] },
    metrics: {
      "pass@1": {
        aggregation: "mean",
        higherIsBetter: true,
        isShare: true,
        judge: (program, { test, entry_point }) => runPython(`${program}\n${test}\ncheck(${entry_point})`),
      },
    },
  },
});
