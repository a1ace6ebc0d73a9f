/**
 * TyDiQA-GoldP (Clark et al., 2020): answers from a Wikipedia passage, in the language of the question. The official metric is
 * SQuAD's exact match and F1, averaged over languages with equal weight. The reference harness has no such task; the example before
 * each question is the first one of the language's training split, or else of the scored split, which then is not scored.
 */
import { z } from "zod";
import { defineGroup, defineTask } from "../define.ts";
import { mapAnswers, takeFirst } from "../filters.ts";
import { bestOver, exactMatch, f1 } from "../metrics/squad.ts";
import { strip } from "../python/text.ts";
import type { GenerationMetric, Task } from "../task.ts";
import { tydiqaWordings } from "./texts/tydiqaWordings.ts";

const answered = z.object({ id: z.string(), context: z.string(), question: z.string() });
const row = z.union([
  answered.extend({ answers: z.array(z.object({ text: z.string() })).min(1) }).transform((doc) => ({
    ...doc,
    answers: doc.answers.map(({ text }) => text),
  })),
  // As the hub publishes it.
  answered
    .extend({ answers: z.object({ text: z.array(z.string()).min(1) }) })
    .transform((doc) => ({ ...doc, answers: doc.answers.text })),
]);
type Row = z.output<typeof row>;

const squadFile = z.object({
  data: z.array(
    z.object({
      paragraphs: z.array(z.object({ context: z.string(), qas: z.array(z.record(z.string(), z.unknown())) })),
    }),
  ),
});

/** The questions of a file in SQuAD's format, each with its passage. */
export function expandSquad(document: unknown): readonly unknown[] {
  const parsed = squadFile.safeParse(document);
  if (!parsed.success) return [document];
  return parsed.data.data.flatMap(({ paragraphs }) =>
    paragraphs.flatMap(({ context, qas }) => qas.map((question) => ({ ...question, context }))),
  );
}

function tydiqaSource(language: string) {
  const files = (split: string, short: string): string[] => [
    `${short}/${language}.json`,
    `${short}/${language}.json.gz`,
    `${split}/${language}.jsonl`,
    `${language}-${short}.json`,
  ];
  return {
    folder: "tydiqa_goldp",
    splits: { train: files("train", "train"), dev: files("validation", "dev") },
    row,
    expand: expandSquad,
    homepage:
      "https://github.com/google-research-datasets/tydiqa (gold passage task v1.1, one file a language, split by the start of the ids)",
    licence: "Apache-2.0",
  };
}

const measured = (measure: (prediction: string, answer: string) => number): GenerationMetric<Row> => ({
  aggregation: "mean",
  higherIsBetter: true,
  isShare: true,
  judge: (prediction, { answers }) => bestOver(measure, prediction, answers),
});

function tydiqaTask(language: string): Task {
  const words = tydiqaWordings[language];
  return defineTask<Row>({
    name: `tydiqa_goldp_${language}`,
    title: language,
    version: 1,
    source: tydiqaSource(language),
    split: "dev",
    preamble: () => `${words.instruction}\n\n`,
    prompt: ({ context, question }) =>
      `${words.passage} ${context}\n${words.question} ${question}\n${words.answer}`,
    answer: ({ answers }) => answers[0],
    shots: { count: 1, split: "train", order: "first", fromScoredSplit: true },
    request: {
      kind: "generate",
      stop: ["\n"],
      maxNewTokens: 50,
      filters: { none: [takeFirst(), mapAnswers(strip)] },
      metrics: { f1: measured(f1), exact_match: measured(exactMatch) },
    },
  });
}

/** Of the model card, in its order. */
export const tydiqaLanguages = [
  "arabic",
  "bengali",
  "finnish",
  "indonesian",
  "korean",
  "russian",
  "swahili",
] as const;

export const tydiqaTasks: readonly Task[] = [...tydiqaLanguages, "english", "telugu"].map(tydiqaTask);

export const tydiqaGroup = defineGroup({
  name: "tydiqa_goldp",
  title: "TyDiQA-GoldP",
  average: "macro",
  members: tydiqaLanguages.map((language) => `tydiqa_goldp_${language}`),
});
