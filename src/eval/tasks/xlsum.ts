/** XL-Sum (Hasan et al., 2021): a one-sentence summary of a news article, in the article's language; after one example. */
import { z } from "zod";
import { defineTask } from "../define.ts";
import { mapAnswers, takeFirst } from "../filters.ts";
import { rouge, rougeL } from "../metrics/rouge.ts";
import { strip } from "../python/text.ts";
import type { GenerationMetric, Task } from "../task.ts";

const row = z.object({ text: z.string(), summary: z.string() });
type Row = z.output<typeof row>;

const measured = (measure: (prediction: string, summary: string) => number): GenerationMetric<Row> => ({
  aggregation: "mean",
  higherIsBetter: true,
  isShare: true,
  judge: (prediction, { summary }) => measure(prediction, summary),
});

function xlsumTask(language: string): Task {
  const files = (split: string, short: string): string[] => [
    `${language}_${short}.jsonl`,
    `${language}/${split}-*.parquet`,
    `${language}/${split}.jsonl`,
    `${split}/${language}.jsonl`,
  ];
  return defineTask<Row>({
    name: `xlsum_${language}`,
    title: `XL-Sum ${language}`,
    version: 1,
    source: {
      folder: "xlsum",
      splits: {
        train: files("train", "train"),
        validation: files("validation", "val"),
        test: files("test", "test"),
      },
      row,
      homepage: "https://huggingface.co/datasets/csebuetnlp/xlsum",
      licence: "CC BY-NC-SA 4.0",
      hub: { repository: "csebuetnlp/xlsum", configuration: language },
    },
    split: "test",
    prompt: ({ text }) => `Article: ${text}\nSummary:`,
    answer: ({ summary }) => summary,
    shots: { count: 1, split: "validation", order: "first", dropWhenTooLong: true },
    request: {
      kind: "generate",
      stop: ["\n"],
      maxNewTokens: 128,
      filters: { none: [takeFirst(), mapAnswers(strip)] },
      metrics: {
        rouge1: measured((prediction, summary) => rouge(prediction, summary, 1)),
        rouge2: measured((prediction, summary) => rouge(prediction, summary, 2)),
        rougeL: measured(rougeL),
      },
    },
  });
}

export const xlsumTasks: readonly Task[] = [
  "arabic",
  "bengali",
  "english",
  "french",
  "hindi",
  "indonesian",
  "japanese",
  "korean",
  "portuguese",
  "russian",
  "spanish",
  "swahili",
  "turkish",
  "vietnamese",
].map(xlsumTask);
