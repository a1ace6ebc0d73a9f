/**
 * GSM8K (Cobbe et al., 2021): word problems of primary school, after eight worked examples with their reasoning. Greedy, or by the
 * majority of several sampled answers (Wang et al., 2022). Filters and their oddities are the reference harness's.
 */
import { z } from "zod";
import { usualFiles } from "../data/store.ts";
import { defineTask } from "../define.ts";
import { extract, majorityVote, takeFirst } from "../filters.ts";
import type { Filter } from "../filters.ts";
import { strip } from "../python/text.ts";
import type { GenerationMetric } from "../task.ts";
import { gsm8kExemplars } from "./texts/gsm8kExemplars.ts";

const row = z.object({ question: z.string(), answer: z.string() });
type Row = z.output<typeof row>;

export const gsm8kSource = {
  folder: "gsm8k",
  splits: { train: usualFiles("train", "main"), test: usualFiles("test", "main") },
  row,
  homepage: "https://github.com/openai/grade-school-math (or https://huggingface.co/datasets/openai/gsm8k)",
  licence: "MIT",
  hub: { repository: "openai/gsm8k", configuration: "main" },
};

const finalNumber = ({ answer }: Row): string => strip(answer.split("####").at(-1) ?? "");

/** Ignores case, commas, dollar signs, a worked solution before "#### ", and a final full stop. */
export function gsm8kMatch(prediction: string, reference: string): number {
  const plain = (text: string): string =>
    text
      .replaceAll(",", "")
      .replaceAll("$", "")
      .replace(/.*#### /gs, "")
      .replace(/\.$/, "")
      .toLowerCase();
  return plain(prediction) === plain(reference) ? 1 : 0;
}

const exactMatch: GenerationMetric<Row> = {
  aggregation: "mean",
  higherIsBetter: true,
  isShare: true,
  judge: (prediction, doc) => gsm8kMatch(prediction, finalNumber(doc)),
};

// The unescaped full stop at the end is the reference's: it takes one character more than the number.
export const strictMatch: Filter<Row> = extract(/The answer is (-?[0-9.,]+)[^\n]/g);
export const flexibleExtract: Filter<Row> = extract(/(-?[$0-9.,]{2,})|(-?[0-9]+)/g, "last");
export const firstAnswer: Filter<Row> = extract(/The answer is (-?[0-9.,]*[0-9]+)/g);

const definition = {
  title: "GSM8K",
  source: gsm8kSource,
  split: "test",
  prompt: ({ question }: Row) => `Q: ${question}\nA:`,
  answer: ({ answer }: Row) => answer,
  shots: { count: 8, examples: gsm8kExemplars },
} as const;

export const gsm8kGreedy = defineTask<Row>({
  ...definition,
  name: "gsm8k_cot",
  title: "GSM8K (greedy)",
  version: 3,
  request: {
    kind: "generate",
    stop: ["Q:", "</s>", "<|im_end|>"],
    maxNewTokens: 256,
    filters: {
      "strict-match": [strictMatch, takeFirst()],
      "flexible-extract": [flexibleExtract, takeFirst()],
    },
    metrics: { exact_match: exactMatch },
  },
});

const sampled = {
  kind: "generate",
  stop: ["Q:", "\n\n"],
  maxNewTokens: 256,
  metrics: { exact_match: exactMatch },
} as const;
const voteOfEight: readonly Filter<Row>[] = [takeFirst(8), firstAnswer, majorityVote(), takeFirst()];

/** The card's row: eight samples. Its temperature is not known; 0.7 is that of Wang et al. without top-k. */
export const gsm8kMajority = defineTask<Row>({
  ...definition,
  name: "gsm8k_maj8",
  version: 1,
  request: {
    ...sampled,
    temperature: 0.7,
    repeats: 8,
    filters: { "maj@8": voteOfEight, "score-first": [firstAnswer, takeFirst()] },
  },
});

export const gsm8kSelfConsistency = defineTask<Row>({
  ...definition,
  name: "gsm8k_cot_self_consistency",
  title: "GSM8K (64 samples)",
  version: 2,
  request: {
    ...sampled,
    temperature: 0.2,
    repeats: 64,
    filters: {
      "score-first": [firstAnswer, takeFirst()],
      "maj@64": [firstAnswer, majorityVote(), takeFirst()],
      "maj@8": voteOfEight,
    },
  },
});
