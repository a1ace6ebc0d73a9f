/**
 * WebQuestions (Berant et al., 2013): questions that people asked a search engine. Nothing is generated: a question counts when any
 * accepted answer is exactly what greedy decoding would say.
 */
import { z } from "zod";
import { usualFiles } from "../data/store.ts";
import { defineTask } from "../define.ts";
import { compareCodePoints } from "../python/text.ts";

const answers = z.array(z.string()).min(1);
const row = z.union([
  z.object({ question: z.string(), answers }),
  z
    .object({ qText: z.string(), answers })
    .transform((doc) => ({ question: doc.qText, answers: doc.answers })),
]);
type Row = z.output<typeof row>;

export const webqsSource = {
  folder: "webqs",
  splits: { train: usualFiles("train"), test: usualFiles("test") },
  row,
  homepage: "https://huggingface.co/datasets/stanfordnlp/web_questions",
  licence: "CC BY 4.0",
  hub: { repository: "stanfordnlp/web_questions" },
};

/** In order, without answers that begin with the one before: where that one is greedy the longer needs no asking. */
function accepted(doc: Row): string[] {
  const kept: string[] = [];
  for (const answer of doc.answers.toSorted(compareCodePoints)) {
    const last = kept.at(-1);
    if (last === undefined || !answer.startsWith(last)) kept.push(answer);
  }
  return kept;
}

export const webqs = defineTask<Row>({
  name: "webqs",
  title: "WebQS",
  version: 2,
  source: webqsSource,
  split: "test",
  prompt: ({ question }) => `Question: ${question}\nAnswer:`,
  answer: (doc) => accepted(doc)[0],
  request: {
    kind: "choice",
    choices: accepted,
    gold: (doc) => accepted(doc).map((_, index) => index),
    metrics: ["exact_match"],
  },
});
