/**
 * Fields that several of OpenAI's requests share. Source: OpenAI's API reference; fields that it does not have are those of vLLM's server.
 * A field set to null counts as absent. Fields that change nothing here are taken and have no effect; those that would ask for another
 * answer than this server gives are refused.
 */
import { z } from "zod";

/** A JSON object of any content. */
export const anyObject = z.record(z.string(), z.unknown());

export const stopField = z
  .union([z.string().min(1), z.array(z.string().min(1)).max(64)])
  .describe("Text that ends the answer; it is not part of it");

export const responseFormat = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("text") }),
  z.strictObject({ type: z.literal("json_object") }),
  z.strictObject({
    type: z.literal("json_schema"),
    json_schema: z.strictObject({
      name: z.string().optional(),
      description: z.string().optional(),
      schema: z.union([anyObject, z.boolean()]),
      strict: z.boolean().nullish(),
    }),
  }),
  z.strictObject({ type: z.literal("regex"), pattern: z.string().min(1) }),
]);

/** How tokens are drawn. */
export const samplingFields = {
  temperature: z.number().min(0).max(100).default(1).describe("0: always the likeliest token"),
  top_p: z.number().min(0).max(1).default(1).describe("1: off"),
  top_k: z.int().min(-1).default(0).describe("0 or -1: off"),
  min_p: z.number().min(0).max(1).default(0),
  repetition_penalty: z.number().positive().max(100).default(1),
  presence_penalty: z.number().min(-2).max(2).default(0),
  frequency_penalty: z.number().min(-2).max(2).default(0),
  logit_bias: z
    .record(z.string().regex(/^\d+$/, "token ids as keys"), z.number().min(-100).max(100))
    .optional()
    .describe("Added to the logits of these token ids"),
  seed: z.int().optional().describe("The same seed and request give the same answer"),
  stop: stopField.optional(),
  stop_token_ids: z.array(z.int().nonnegative()).max(64).default([]),
  min_tokens: z.int().nonnegative().default(0),
  ignore_eos: z.boolean().default(false).describe("Goes on through the end of text"),
};

/** What may come next at all. */
export const constraintFields = {
  response_format: responseFormat.optional(),
  guided_json: z
    .union([anyObject, z.string()])
    .optional()
    .describe("A JSON schema, or one as text, that the answer fits"),
  guided_regex: z.string().min(1).optional(),
  guided_choice: z.array(z.string().min(1)).min(1).optional(),
};

export const streamFields = {
  stream: z.boolean().default(false),
  stream_options: z
    .strictObject({
      include_usage: z.boolean().nullish(),
      include_obfuscation: z.boolean().nullish(),
    })
    .optional(),
};

/** Taken, and without effect. */
export const ignoredFields = {
  user: z.string().optional(),
  metadata: z.unknown().optional(),
  store: z.unknown().optional(),
  service_tier: z.unknown().optional(),
  safety_identifier: z.unknown().optional(),
  prompt_cache_key: z.unknown().optional(),
  prompt_cache_retention: z.unknown().optional(),
};

export const modelField = z.string().min(1).optional().describe("May be left out where one model is served");

export const usageSchema = z.strictObject({
  prompt_tokens: z.int(),
  completion_tokens: z.int(),
  total_tokens: z.int(),
  prompt_tokens_details: z.strictObject({ cached_tokens: z.int() }),
});
export type Usage = z.output<typeof usageSchema>;

export const errorSchema = z.strictObject({
  error: z.strictObject({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string().nullable(),
  }),
});
