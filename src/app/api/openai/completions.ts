/** `POST /v1/completions`. */
import { z } from "zod";
import {
  constraintFields,
  ignoredFields,
  modelField,
  samplingFields,
  streamFields,
  usageSchema,
} from "./fields.ts";

const tokenIds = z.array(z.int().nonnegative()).min(1);

export const completionRequestSchema = z.strictObject({
  model: modelField,
  prompt: z
    .union([z.string(), tokenIds, z.array(z.string()).min(1), z.array(tokenIds).min(1)])
    .describe("Text, texts, token ids, or several lists of them"),
  max_tokens: z.int().nonnegative().optional().describe("Default 16"),
  n: z.int().min(1).max(128).default(1),
  best_of: z.int().min(1).max(128).optional().describe("Answers made, of which the n likeliest are given"),
  echo: z.boolean().default(false),
  logprobs: z.int().min(0).max(100).optional(),
  suffix: z.string().optional().describe("Refused: these models do not fill in"),
  truncate_prompt_tokens: z
    .int()
    .min(1)
    .optional()
    .describe("Keeps the last tokens of a prompt that is longer"),
  add_special_tokens: z
    .boolean()
    .default(false)
    .describe("Begins text prompts with the model's beginning mark"),
  priority: z.int().default(0).describe("Higher goes first"),
  ...samplingFields,
  ...constraintFields,
  ...streamFields,
  ...ignoredFields,
});
export type CompletionRequest = z.output<typeof completionRequestSchema>;

export const completionLogprobsSchema = z.strictObject({
  text_offset: z.array(z.int()).describe("Where each token begins, in code points"),
  token_logprobs: z.array(z.number().nullable()),
  tokens: z.array(z.string()),
  top_logprobs: z.array(z.record(z.string(), z.number()).nullable()).nullable(),
});
export type CompletionLogprobs = z.output<typeof completionLogprobsSchema>;

const choice = z.strictObject({
  index: z.int(),
  text: z.string(),
  logprobs: completionLogprobsSchema.nullable(),
  finish_reason: z.enum(["stop", "length"]).nullable(),
});
export type CompletionChoice = z.output<typeof choice>;

const envelope = {
  id: z.string(),
  object: z.literal("text_completion"),
  created: z.int(),
  model: z.string(),
  choices: z.array(choice),
};
export const completionSchema = z.strictObject({ ...envelope, usage: usageSchema });
export const completionChunkSchema = z.strictObject({ ...envelope, usage: usageSchema.nullish() });
export type Completion = z.output<typeof completionSchema>;
export type CompletionChunk = z.output<typeof completionChunkSchema>;
