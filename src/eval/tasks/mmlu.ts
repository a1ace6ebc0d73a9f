/**
 * MMLU (Hendrycks et al., 2021): 57 subjects, four choices, five examples of each subject's own. In the three ways that the Hugging
 * Face comparison "What's going on with the Open LLM Leaderboard?" (June 2023) tells apart, the harness's as it is since then:
 *
 * - original (hendrycks/test and its pull request 13): texts as they are, two spaces before the subject, the likeliest of the four
 *   letters as next token; examples are dropped while the prompt is too long;
 * - the reference harness's `mmlu`: questions stripped, " A" to " D" scored as continuations, long prompts cut on the left;
 * - HELM: "Question:" before each question, and the letter must be what the model says.
 */
import { z } from "zod";
import { usualFiles } from "../data/store.ts";
import { defineGroup, defineTask } from "../define.ts";
import { mapAnswers, takeFirst } from "../filters.ts";
import { strip } from "../python/text.ts";
import type { Task, TaskGroup } from "../task.ts";
import { mmluSubjects } from "./mmluSubjects.ts";
import type { MmluCategory } from "./mmluSubjects.ts";

const letters = ["A", "B", "C", "D"] as const;

const row = z.union([
  z.object({
    subject: z.string(),
    question: z.string(),
    choices: z.array(z.string()).length(4),
    answer: z.number().int().min(0).max(3),
  }),
  // The original CSV files, without a header.
  z
    .object({
      subject: z.string(),
      question: z.string(),
      A: z.string(),
      B: z.string(),
      C: z.string(),
      D: z.string(),
      answer: z.enum(letters),
    })
    .transform(({ subject, question, A, B, C, D, answer }) => ({
      subject,
      question,
      choices: [A, B, C, D],
      answer: letters.indexOf(answer),
    })),
]);
type Row = z.output<typeof row>;

const filesOf = (split: string, short: string): string[] => [
  ...usualFiles(split, "all"),
  `${short}/*_${short}.csv`,
  `data/${short}/*_${short}.csv`,
];

export const mmluSource = {
  folder: "mmlu",
  splits: {
    dev: filesOf("dev", "dev"),
    validation: filesOf("validation", "val"),
    test: filesOf("test", "test"),
  },
  row,
  columns: ["question", ...letters, "answer"],
  fieldsOfFile: (fileName: string) => {
    const subject = fileName.replace(/_(dev|val|test)$/, "");
    return subject in mmluSubjects ? { subject } : {};
  },
  homepage:
    "https://huggingface.co/datasets/cais/mmlu (or https://people.eecs.berkeley.edu/~hendrycks/data.tar)",
  licence: "MIT",
  hub: { repository: "cais/mmlu", configuration: "all" },
};

const spaced = (subject: string): string => subject.replaceAll("_", " ");
const letterOf = ({ answer }: Row): string => letters[answer];
const listed = ({ choices }: Row): string =>
  choices.map((choice, index) => `\n${letters[index]}. ${choice}`).join("");

const common = {
  version: 1,
  source: mmluSource,
  split: "test",
  answer: letterOf,
} as const;
const shots = { count: 5, split: "dev", order: "first" } as const;
const letterChoice = {
  kind: "choice",
  choices: () => letters,
  gold: ({ answer }: Row) => [answer],
  metrics: ["acc"],
} as const;

export type MmluWay = "original" | "lm-eval" | "helm";

/** Before a subject's name: the reference harness's names for its own way, others say theirs. */
export const mmluPrefix: Readonly<Record<MmluWay, string>> = {
  original: "mmlu_original",
  "lm-eval": "mmlu",
  helm: "mmlu_helm",
};

const originalPrompt = (doc: Row): string => `${doc.question}${listed(doc)}\nAnswer:`;

function originalTask(subject: string): Task {
  return defineTask<Row>({
    ...common,
    name: `${mmluPrefix.original}_${subject}`,
    title: spaced(subject),
    only: { field: "subject", value: subject },
    preamble: () =>
      `The following are multiple choice questions (with answers) about  ${spaced(subject)}.\n\n`,
    prompt: originalPrompt,
    shots: { ...shots, dropWhenTooLong: true },
    request: { ...letterChoice, encoding: "last-token" },
    describe: (tokenizer) => ({
      letterIds:
        tokenizer === undefined
          ? "unknown to this client"
          : letters.map((letter) => tokenizer.encode(letter).at(-1)),
    }),
  });
}

function harnessTask(subject: string): Task {
  return defineTask<Row>({
    ...common,
    name: `${mmluPrefix["lm-eval"]}_${subject}`,
    title: spaced(subject),
    only: { field: "subject", value: subject },
    preamble: () =>
      `The following are multiple choice questions (with answers) about ${spaced(subject)}.\n\n`,
    prompt: (doc) => `${strip(doc.question)}${listed(doc)}\nAnswer:`,
    shots,
    request: letterChoice,
  });
}

function helmTask(subject: string): Task {
  return defineTask<Row>({
    ...common,
    name: `${mmluPrefix.helm}_${subject}`,
    title: spaced(subject),
    only: { field: "subject", value: subject },
    preamble: () =>
      `The following are multiple choice questions (with answers) about ${spaced(subject)}.\n\n`,
    prompt: (doc) => `Question: ${doc.question}${listed(doc)}\nAnswer:`,
    shots: { ...shots, dropWhenTooLong: true },
    request: {
      kind: "generate",
      stop: ["\n"],
      maxNewTokens: 1,
      filters: { none: [takeFirst(), mapAnswers(strip)] },
      metrics: {
        exact_match: {
          aggregation: "mean",
          higherIsBetter: true,
          isShare: true,
          judge: (said, doc) => (said === letterOf(doc) ? 1 : 0),
        },
      },
    },
  });
}

const makers: Readonly<Record<MmluWay, (subject: string) => Task>> = {
  original: originalTask,
  "lm-eval": harnessTask,
  helm: helmTask,
};

const categories: readonly MmluCategory[] = ["stem", "other", "social_sciences", "humanities"];
const titles: Readonly<Record<MmluWay, string>> = {
  original: "MMLU (original)",
  "lm-eval": "MMLU",
  helm: "MMLU (HELM)",
};

export const mmluTasks: readonly Task[] = (Object.keys(makers) as MmluWay[]).flatMap((way) =>
  Object.keys(mmluSubjects).map((subject) => makers[way](subject)),
);

export const mmluGroups: readonly TaskGroup[] = (Object.keys(makers) as MmluWay[]).flatMap((way) => {
  const prefix = mmluPrefix[way];
  return [
    defineGroup({
      name: prefix,
      title: titles[way],
      version: 2,
      average: "micro",
      members: categories.map((category) => `${prefix}_${category}`),
    }),
    ...categories.map((category) =>
      defineGroup({
        name: `${prefix}_${category}`,
        title: spaced(category),
        version: 2,
        average: "micro",
        members: Object.entries(mmluSubjects)
          .filter(([, belongsTo]) => belongsTo === category)
          .map(([subject]) => `${prefix}_${subject}`),
      }),
    ),
  ];
});
