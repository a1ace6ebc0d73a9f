/**
 * WinoGrande (Sakaguchi et al., 2019): which of two names fills the gap. Scored as Trinh and Le (2018) do: the likelihood of what
 * follows the gap, after each of the names.
 */
import { z } from "zod";
import { usualFiles } from "../data/store.ts";
import { defineTask } from "../define.ts";
import { strip } from "../python/text.ts";

const row = z.object({
  sentence: z.string().regex(/_/, "expected a sentence with a gap '_'"),
  option1: z.string(),
  option2: z.string(),
  answer: z.enum(["1", "2"]),
});
type Row = z.output<typeof row>;

const files = (split: string): string[] => usualFiles(split, "winogrande_xl");
export const winograndeSource = {
  folder: "winogrande",
  splits: { train: files("train"), validation: files("validation") },
  row,
  homepage: "https://huggingface.co/datasets/allenai/winogrande",
  licence: "CC BY",
  hub: { repository: "allenai/winogrande", configuration: "winogrande_xl" },
};

const filled = ({ sentence }: Row, option: string): string =>
  sentence.slice(0, sentence.indexOf("_")) + option;
const rest = ({ sentence }: Row): string => strip(sentence.slice(sentence.indexOf("_") + 1));
const options = ({ option1, option2 }: Row): string[] => [option1, option2];
const gold = ({ answer }: Row): number => Number(answer) - 1;

const definition = {
  title: "WinoGrande",
  version: 1,
  source: winograndeSource,
  split: "validation",
  prompt: (doc: Row) => filled(doc, options(doc)[gold(doc)]),
  answer: rest,
};

const request = {
  kind: "choice",
  choices: options,
  contexts: (doc: Row) => options(doc).map((option) => filled(doc, option)),
  continuation: rest,
  gold: (doc: Row) => [gold(doc)],
  metrics: ["acc"],
} as const;

export const winogrande = defineTask<Row>({ ...definition, name: "winogrande", request });

export const winograndeNvidia = defineTask<Row>({
  ...definition,
  name: "winogrande_nvidia",
  variantOf: "winogrande",
  request: { ...request, encoding: "apart" },
});
