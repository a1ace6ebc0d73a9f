/** `/v1/models`, `/v1/embeddings`, `/tokenize`, `/detokenize`. The last two are vLLM's. */
import { z } from "zod";
import { chatMessageSchema } from "./chat.ts";
import { anyObject, ignoredFields, modelField } from "./fields.ts";

const tokenIds = z.array(z.int().nonnegative()).min(1);

export const modelSchema = z.strictObject({
  id: z.string(),
  object: z.literal("model"),
  created: z.int(),
  owned_by: z.string(),
  max_model_len: z.int().describe("Longest prompt and answer together, in tokens"),
});
export type ModelObject = z.output<typeof modelSchema>;
export const modelListSchema = z.strictObject({ object: z.literal("list"), data: z.array(modelSchema) });

export const embeddingRequestSchema = z.strictObject({
  model: modelField,
  input: z.union([z.string(), tokenIds, z.array(z.string()).min(1), z.array(tokenIds).min(1)]),
  encoding_format: z.enum(["float", "base64"]).default("float").describe("base64: of little-endian float32"),
  dimensions: z.int().positive().optional().describe("Only the model's own width"),
  pooling: z.enum(["mean", "last"]).default("mean"),
  normalize: z.boolean().default(true).describe("To unit length, as OpenAI's are"),
  truncate_prompt_tokens: z.int().min(1).optional(),
  ...ignoredFields,
});
export type EmbeddingRequest = z.output<typeof embeddingRequestSchema>;
export const embeddingListSchema = z.strictObject({
  object: z.literal("list"),
  data: z.array(
    z.strictObject({
      object: z.literal("embedding"),
      index: z.int(),
      embedding: z.union([z.array(z.number()), z.string()]),
    }),
  ),
  model: z.string(),
  usage: z.strictObject({ prompt_tokens: z.int(), total_tokens: z.int() }),
});

export const tokenizeRequestSchema = z.strictObject({
  model: modelField,
  prompt: z.string().optional(),
  messages: z
    .array(chatMessageSchema)
    .min(1)
    .optional()
    .describe("A conversation instead, by the chat template"),
  tools: z.array(anyObject).optional(),
  chat_template_kwargs: anyObject.optional(),
  add_generation_prompt: z.boolean().default(true),
  add_special_tokens: z.boolean().default(false).describe("Begins the text with the model's beginning mark"),
  return_token_strs: z.boolean().default(false),
});
export const tokenizeSchema = z.strictObject({
  count: z.int(),
  max_model_len: z.int(),
  tokens: z.array(z.int()),
  token_strs: z.array(z.string()).optional(),
});
export const detokenizeRequestSchema = z.strictObject({ model: modelField, tokens: tokenIds });
export const detokenizeSchema = z.strictObject({ prompt: z.string() });
