/**
 * What a request may ask of sampling, with the meanings of NeMo where it matters: temperature 0 or topK 1 is greedy, topK 0 and
 * topP 0 are off.
 */
import { z } from "zod";
import { parseConfig } from "../base/index.ts";

const samplingSchema = z.strictObject({
  /** 0 only reads the prompt. */
  maxTokens: z.int().nonnegative().default(128),
  temperature: z.number().nonnegative().default(1),
  topK: z.int().nonnegative().default(0),
  topP: z.number().min(0).max(1).default(0),
  minP: z.number().min(0).max(1).default(0),
  repetitionPenalty: z.number().positive().default(1),
  presencePenalty: z.number().default(0),
  frequencyPenalty: z.number().default(0),
  seed: z.int().nonnegative().default(0),
  stop: z.array(z.string().min(1)).default([]),
  /** Ends at the end-of-document token; false goes on through it. */
  stopAtEnd: z.boolean().default(true),
  /** No end token is drawn, and no stop string ends the text, before so many tokens. */
  minTokens: z.int().nonnegative().default(0),
  /** Added to the logits of these tokens before anything else: [token, bias]. */
  logitBias: z.array(z.tuple([z.int().nonnegative(), z.number()])).default([]),
});

/** Options of one request as a caller writes them. */
export type SamplingInput = z.input<typeof samplingSchema>;
export type SamplingOptions = z.output<typeof samplingSchema>;

/** Fills in and checks sampling options. Throws ConfigError. */
export function parseSampling(input: SamplingInput): SamplingOptions {
  return parseConfig("sampling", samplingSchema, input);
}

/** Whether the draw depends on the tokens so far. */
export function hasPenalties(options: SamplingOptions): boolean {
  return options.repetitionPenalty !== 1 || options.presencePenalty !== 0 || options.frequencyPenalty !== 0;
}
