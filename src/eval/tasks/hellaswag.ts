/** HellaSwag (Zellers et al., 2019): which of four endings follows a description of an activity. */
import { z } from "zod";
import { usualFiles } from "../data/store.ts";
import { defineTask } from "../define.ts";
import { capitalize, strip } from "../python/text.ts";

const row = z.object({
  activity_label: z.string(),
  ctx_a: z.string(),
  ctx_b: z.string(),
  endings: z.array(z.string()).min(2),
  label: z.coerce.number().int().min(0),
});
type Row = z.output<typeof row>;

export const hellaswagSource = {
  folder: "hellaswag",
  splits: {
    train: usualFiles("train"),
    validation: [
      ...usualFiles("validation"),
      "hellaswag_val.jsonl",
      "hellaswag_val.jsonl.gz",
      "val_sample1000.jsonl.gz",
    ],
  },
  row,
  homepage: "https://huggingface.co/datasets/Rowan/hellaswag",
  licence: "MIT",
  hub: { repository: "Rowan/hellaswag" },
};

/** Takes WikiHow's marks out. The order matters: stripping comes first, so an ending that began with a mark keeps its space. */
function clean(text: string): string {
  return strip(text)
    .replaceAll(" [title]", ". ")
    .replace(/\[[^\n]*?\]/g, "")
    .replaceAll("  ", " ");
}

const endings = (doc: Row): string[] => doc.endings.map(clean);

const definition = {
  title: "HellaSwag",
  version: 1,
  source: hellaswagSource,
  split: "validation",
  prompt: (doc: Row) => clean(`${doc.activity_label}: ${doc.ctx_a} ${capitalize(doc.ctx_b)}`),
  answer: (doc: Row) => endings(doc)[doc.label],
};

const request = { kind: "choice", choices: endings, gold: (doc: Row) => [doc.label] } as const;

export const hellaswag = defineTask<Row>({
  ...definition,
  name: "hellaswag",
  request: { ...request, metrics: ["acc", "acc_norm"] },
});

export const hellaswagNvidia = defineTask<Row>({
  ...definition,
  name: "hellaswag_nvidia",
  variantOf: "hellaswag",
  request: { ...request, metrics: ["acc", "acc_norm_tokens"], encoding: "apart" },
});
