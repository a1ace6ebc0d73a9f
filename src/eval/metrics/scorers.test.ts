/** Scorers against the official code on recorded predictions (test/fixtures/generate/eval_scorers.py). */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { majorityVote } from "../filters.ts";
import type { Filter } from "../filters.ts";
import { firstAnswer, flexibleExtract, gsm8kMatch, strictMatch } from "../tasks/gsm8k.ts";
import { aggregate, combine } from "./aggregate.ts";
import { rouge, rougeL } from "./rouge.ts";
import { exactMatch, f1 } from "./squad.ts";
import { chrf, corpusBleu } from "./translation.ts";

const expected = z
  .object({
    squad: z.array(
      z.object({ prediction: z.string(), answer: z.string(), exactMatch: z.number(), f1: z.number() }),
    ),
    extracted: z.array(
      z.object({ text: z.string(), strict: z.string(), flexible: z.string(), first: z.string() }),
    ),
    voted: z.array(z.object({ answers: z.array(z.string()), vote: z.string() })),
    matched: z.array(z.object({ prediction: z.string(), reference: z.string(), match: z.number() })),
    corpora: z.array(
      z.object({
        hypotheses: z.array(z.string()),
        references: z.array(z.string()),
        bleu: z.number(),
        chrf: z.number(),
      }),
    ),
    rouge: z.array(
      z.object({
        prediction: z.string(),
        reference: z.string(),
        rouge1: z.number(),
        rouge2: z.number(),
        rougeL: z.number(),
      }),
    ),
    pooled: z.number(),
  })
  .parse(
    JSON.parse(readFileSync(new URL("../../../test/fixtures/eval/scorers.json", import.meta.url), "utf8")),
  );

describe("scorers equal the official ones", () => {
  it("SQuAD's exact match and F1, in the languages of TyDiQA", () => {
    for (const { prediction, answer, ...official } of expected.squad) {
      expect(exactMatch(prediction, answer), prediction).toBe(official.exactMatch);
      expect(f1(prediction, answer), prediction).toBeCloseTo(official.f1, 12);
    }
  });

  it("GSM8K's filters, vote and match", () => {
    const row = { question: "", answer: "" };
    const one = (filter: Filter<typeof row>, text: string): string => filter([text], row)[0];
    for (const { text, strict, flexible, first } of expected.extracted) {
      expect(
        {
          strict: one(strictMatch, text),
          flexible: one(flexibleExtract, text),
          first: one(firstAnswer, text),
        },
        text,
      ).toEqual({ strict, flexible, first });
    }
    for (const { answers, vote } of expected.voted) expect(majorityVote()(answers, row)).toEqual([vote]);
    for (const { prediction, reference, match } of expected.matched)
      expect(gsm8kMatch(prediction, reference), prediction).toBe(match);
  });

  it("BLEU and chrF of corpora", () => {
    for (const { hypotheses, references, ...official } of expected.corpora) {
      const pairs = hypotheses.map((hypothesis, index) => ({ hypothesis, reference: references[index] }));
      expect(corpusBleu(pairs)).toBeCloseTo(official.bleu, 8);
      expect(chrf(pairs)).toBeCloseTo(official.chrf, 8);
    }
  });

  it("ROUGE", () => {
    for (const { prediction, reference, ...official } of expected.rouge) {
      expect(rouge(prediction, reference, 1)).toBeCloseTo(official.rouge1, 12);
      expect(rouge(prediction, reference, 2)).toBeCloseTo(official.rouge2, 12);
      expect(rougeL(prediction, reference)).toBeCloseTo(official.rougeL, 12);
    }
  });

  it("pooled errors of groups; macro averages weigh members alike", () => {
    const figures = [
      { value: 0.2, standardError: 0.02, numSamples: 100 },
      { value: 0.4, standardError: 0.03, numSamples: 250 },
      { value: 0.6, standardError: 0.01, numSamples: 1534 },
    ];
    const micro = combine(figures, "micro");
    expect(micro.standardError).toBeCloseTo(expected.pooled, 12);
    expect(micro.value).toBeCloseTo((20 + 100 + 920.4) / 1884, 12);
    const macro = combine(figures, "macro");
    expect(macro.value).toBeCloseTo(0.4, 12);
    expect(macro.standardError).toBeCloseTo(Math.sqrt(0.0004 + 0.0009 + 0.0001) / 3, 12);
  });

  it("a perplexity and bits per byte", () => {
    const options = { bootstrapIterations: 0 };
    expect(aggregate("perplexity", [-1, -3], options).value).toBeCloseTo(Math.exp(2), 12);
    const values = [
      { logprob: -8, weight: 4 },
      { logprob: -2, weight: 6 },
    ];
    expect(aggregate("bits_per_byte", values, options).value).toBeCloseTo(1 / Math.LN2, 12);
  });
});
