/** Tasks that the reference prompts do not cover: what they ask and how they score, worked out by hand for a few made-up documents. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { invariant } from "../../src/base/index.ts";
import { DataStore, TaskRegistry } from "../../src/eval/index.ts";
import type { Answer, OpenTask } from "../../src/eval/index.ts";
import { readRows } from "../../src/eval/data/rows.ts";
import { gsm8kExemplars } from "../../src/eval/tasks/texts/gsm8kExemplars.ts";
import { noModel } from "./data.ts";

const folder = mkdtempSync(join(tmpdir(), "nautilus-tasks-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const store = new DataStore({ folders: [folder] });

function put(name: string, content: string): void {
  mkdirSync(dirname(join(folder, name)), { recursive: true });
  writeFileSync(join(folder, name), content);
}
const putLines = (name: string, rows: readonly object[]): void =>
  put(name, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));

async function opened(name: string): Promise<OpenTask> {
  const task = new TaskRegistry().task(name);
  invariant(task !== undefined, `a task called ${name}`);
  return await task.open(store, { seed: 1, model: noModel });
}
const hasPython = spawnSync("python3", ["-c", "import resource"]).status === 0;
const said = (...texts: string[]): Answer[] => texts.map((text) => ({ kind: "text", text }));

describe("HumanEval", () => {
  putLines("humaneval/test.jsonl", [
    {
      task_id: "made/0",
      prompt: 'def twice(x):\n    """Two times x."""\n',
      test: "def check(candidate):\n    assert candidate(3) == 6",
      entry_point: "twice",
    },
  ]);

  it("asks with the heading alone", async () => {
    const sample = (await opened("humaneval")).sample(0);
    expect(sample.requests).toEqual([
      {
        kind: "generate",
        prompt: 'def twice(x):\n    """Two times x."""\n',
        stop: ["\nclass", "\ndef", "\n#", "\nif", "\nprint"],
        maxNewTokens: 1024,
        sampling: {},
      },
    ]);
  });

  it("runs heading, answer and tests", async (test) => {
    test.skip(!hasPython, "Python 3 is not here");
    const sample = (await opened("humaneval")).sample(0);
    expect(sample.score(said("    return 2 * x\n")).values).toEqual({ "pass@1,create_test": 1 });
    expect(sample.score(said("    return x\n")).values).toEqual({ "pass@1,create_test": 0 });
  });
});

describe("MBPP", () => {
  const made = (word: string) => ({
    text: `Write ${word}.`,
    code: `${word} = 1`,
    test_list: [`assert ${word} == 1`, `assert ${word} < 2`, `assert ${word} > 0`, "assert False"],
  });
  putLines("mbpp/prompt.jsonl", ["a", "b", "c", "d"].map(made));
  putLines("mbpp/test.jsonl", [made("e")]);

  it("shows the prompts after the first one, three tests each", async () => {
    const asked = (word: string): string =>
      `You are an expert Python programmer, and here is your task: Write ${word}. Your code should pass these tests:\n\n` +
      `assert ${word} == 1\nassert ${word} < 2\nassert ${word} > 0\n[BEGIN]\n`;
    const shown = ["b", "c", "d"].map((word) => `${asked(word)}${word} = 1\n[DONE]\n\n`).join("");
    const sample = (await opened("mbpp")).sample(0);
    expect(sample.requests).toMatchObject([
      { prompt: shown + asked("e"), stop: ["[DONE]"], maxNewTokens: 256, sampling: {} },
    ]);
  });

  it("runs three tests", async (test) => {
    test.skip(!hasPython, "Python 3 is not here");
    const sample = (await opened("mbpp")).sample(0);
    // The fourth test would fail any program.
    expect(sample.score(said("e = 1")).values).toEqual({ "pass_at_1,none": 1 });
    expect(sample.score(said("e = 5")).values).toEqual({ "pass_at_1,none": 0 });
  });
});

describe("XL-Sum", () => {
  putLines("xlsum/english_val.jsonl", [{ text: "A ship left.", summary: "Ship leaves." }]);
  putLines("xlsum/english_test.jsonl", [{ text: "The sea rose by a metre.", summary: "the sea rose fast" }]);
  putLines("xlsum/french_val.jsonl", [{ text: "Un navire part.", summary: "Départ." }]);
  putLines("xlsum/french_test.jsonl", [{ text: "La mer monte.", summary: "La mer." }]);

  it("summarises after one example of its own language", async () => {
    const sample = (await opened("xlsum_english")).sample(0);
    expect(sample.requests).toMatchObject([
      {
        prompt: "Article: A ship left.\nSummary: Ship leaves.\n\nArticle: The sea rose by a metre.\nSummary:",
        stop: ["\n"],
        maxNewTokens: 128,
      },
    ]);
    expect((await opened("xlsum_french")).sample(0).requests).toMatchObject([
      { prompt: "Article: Un navire part.\nSummary: Départ.\n\nArticle: La mer monte.\nSummary:" },
    ]);
    // Three of three words are among the summary's four: F1 = 2·1·(3/4) / (1 + 3/4) = 6/7. No pair is: 0.
    // In order two of three and two of four are the same: F1 = 2·(2/3)·(1/2) / (2/3 + 1/2) = 4/7.
    const { values } = sample.score(said(" The rose sea"));
    expect(values["rouge1,none"]).toBeCloseTo(6 / 7, 12);
    expect(values["rouge2,none"]).toBe(0);
    expect(values["rougeL,none"]).toBeCloseTo(4 / 7, 12);
    // One pair of two, one of three: F1 = 2·(1/2)·(1/3) / (1/2 + 1/3) = 2/5.
    expect(sample.score(said(" sea rose up")).values["rouge2,none"]).toBeCloseTo(2 / 5, 12);
  });
});

describe("FLORES", () => {
  const five = (word: string): string => [1, 2, 3, 4, 5].map((count) => `${word} ${count}\n`).join("");
  for (const [language, word, text] of [
    ["deu_Latn", "Schiff", "Guten Tag"],
    ["fra_Latn", "navire", "Bonjour"],
    ["eng_Latn", "ship", "Good day"],
  ]) {
    put(`flores/dev/${language}.dev`, five(word));
    put(`flores/devtest/${language}.devtest`, `${text}\n`);
  }
  const prompt = (from: [string, string, string], to: [string, string]): string =>
    [1, 2, 3, 4, 5]
      .map((n) => `${from[0]} phrase: ${from[1]} ${n}\n${to[0]} phrase: ${to[1]} ${n}\n\n`)
      .join("") + `${from[0]} phrase: ${from[2]}\n${to[0]} phrase:`;

  it("translates after five pairs of the same two languages, in both directions", async () => {
    const english = (await opened("flores_deu_Latn-eng_Latn")).sample(0);
    expect(english.target).toBe("Good day");
    expect(english.requests).toMatchObject([
      { prompt: prompt(["German", "Schiff", "Guten Tag"], ["English", "ship"]), stop: ["\n"] },
    ]);
    // Both start from English: the languages they go to must not be taken for each other.
    for (const [code, language, word, target] of [
      ["deu_Latn", "German", "Schiff", "Guten Tag"],
      ["fra_Latn", "French", "navire", "Bonjour"],
    ] as const) {
      const sample = (await opened(`flores_eng_Latn-${code}`)).sample(0);
      expect(sample.target).toBe(target);
      expect(sample.requests).toMatchObject([
        { prompt: prompt(["English", "ship", "Good day"], [language, word]) },
      ]);
    }
    expect(english.score(said(" Good night ")).values).toEqual({
      "bleu,none": { hypothesis: "Good night", reference: "Good day" },
      "chrf,none": { hypothesis: "Good night", reference: "Good day" },
    });
  });
});

describe("TyDiQA-GoldP", () => {
  const squad = (rows: readonly [string, string, string][]): string =>
    JSON.stringify({
      data: rows.map(([context, question, text]) => ({
        paragraphs: [{ context, qas: [{ id: question, question, answers: [{ text, answer_start: 0 }] }] }],
      })),
    });
  put("tydiqa_goldp/train/finnish.json", squad([["Meri on sininen.", "Mikä on sininen?", "Meri"]]));
  put("tydiqa_goldp/dev/finnish.json", squad([["Kuu on keltainen.", "Mikä on keltainen?", "Kuu"]]));
  put(
    "tydiqa_goldp/dev/english.json",
    squad([
      ["The sea is blue.", "What is blue?", "The sea"],
      ["x", "y?", "z"],
    ]),
  );

  it("asks in the language of the question after one of its training examples", async () => {
    const open = await opened("tydiqa_goldp_finnish");
    const asked = (context: string, question: string): string =>
      `Kappale: ${context}\nKysymys: ${question}\nVastaus:`;
    expect(open.sample(0).requests).toMatchObject([
      {
        prompt:
          "Vastaa seuraavaan kysymykseen annetun kappaleen tiedon perusteella.\n\n" +
          `${asked("Meri on sininen.", "Mikä on sininen?")} Meri\n\n${asked("Kuu on keltainen.", "Mikä on keltainen?")}`,
        stop: ["\n"],
        maxNewTokens: 50,
      },
    ]);
    expect(open.sample(0).score(said(" Kuu.")).values).toEqual({ "f1,none": 1, "exact_match,none": 1 });
    // One of two words is right, and all of the answer is said: F1 = 2·(1/2)·1 / (3/2).
    expect(open.sample(0).score(said(" Kuu taas")).values["f1,none"]).toBeCloseTo(2 / 3, 12);
  });

  it("takes the first row as example where there is no training split, and does not score it", async () => {
    const open = await opened("tydiqa_goldp_english");
    expect(open.numSamples).toBe(1);
    expect(open.sample(0).requests).toMatchObject([
      {
        prompt: expect.stringMatching(
          /Question: What is blue\?\nAnswer: The sea\n\nPassage: x\nQuestion: y\?\nAnswer:$/,
        ) as unknown,
      },
    ]);
  });
});

describe("GSM8K with eight samples", () => {
  putLines("gsm8k/test.jsonl", [{ question: "How many?", answer: "Some work.\n#### 1,234" }]);

  it("asks eight times with seeds of their own, and lets the majority answer", async () => {
    const sample = (await opened("gsm8k_maj8")).sample(0);
    const shown = gsm8kExemplars.map(({ question, answer }) => `Q: ${question}\nA: ${answer}\n\n`).join("");
    expect(sample.requests).toHaveLength(8);
    const seeds = sample.requests.map((request) => {
      invariant(request.kind === "generate", "GSM8K generates");
      expect(request.prompt).toBe(`${shown}Q: How many?\nA:`);
      expect(request.sampling.temperature).toBe(0.7);
      return request.sampling.seed;
    });
    expect(new Set(seeds).size).toBe(8);
    const is = (number: string): string => ` I think. The answer is ${number}.`;
    // Three for 1234, two for 7, two for 9, one without an answer; the first says 7.
    const votes = said(is("7"), is("1234"), is("9"), "no idea", is("1234"), is("7"), is("1234"), is("9"));
    expect(sample.score(votes).values).toEqual({
      "exact_match,maj@8": 1,
      "exact_match,score-first": 0,
    });
    // Of equals the first one seen.
    const tied = said(is("7"), is("1234"), is("1234"), is("7"), is("1"), is("2"), is("3"), is("4"));
    expect(sample.score(tied)).toMatchObject({ values: { "exact_match,maj@8": 0 }, prediction: "7" });
    // "1,234" and "1234" are two answers to the vote, as in the reference harness, and one to the judge.
    const spelt = said(is("1,234"), is("1,234"), is("1234"), is("5"), is("5"), is("1,234"), is("6"), is("8"));
    expect(sample.score(spelt)).toMatchObject({ values: { "exact_match,maj@8": 1 }, prediction: "1,234" });
  });
});

describe("Parquet", () => {
  it.each(["openbookqa", "boolq"])("rows of %s are those that pyarrow was given", async (name) => {
    const path = fileURLToPath(new URL(`../fixtures/eval/${name}.parquet`, import.meta.url));
    const given = z
      .record(z.string(), z.unknown())
      .parse(JSON.parse(readFileSync(new URL("../fixtures/eval/documents.json", import.meta.url), "utf8")));
    const rows = await readRows(path);
    expect(rows.map(({ value }) => value)).toEqual(given[name]);
    expect(rows[1].place).toBe(`${path} row 2`);
  });
});
