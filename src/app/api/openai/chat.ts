/** `POST /v1/chat/completions`. */
import { z } from "zod";
import {
  anyObject,
  constraintFields,
  ignoredFields,
  modelField,
  samplingFields,
  streamFields,
  usageSchema,
} from "./fields.ts";

const textPart = z.looseObject({ type: z.enum(["text", "refusal"]), text: z.string().optional() });
const otherPart = z.looseObject({ type: z.string() });

const toolCallInput = z.looseObject({
  id: z.string().optional(),
  type: z.literal("function").optional(),
  function: z.looseObject({ name: z.string(), arguments: z.union([z.string(), anyObject]) }),
});

export const chatMessageSchema = z.looseObject({
  role: z.string().min(1),
  content: z.union([z.string(), z.array(z.union([textPart, otherPart]))]).nullish(),
  name: z.string().nullish(),
  tool_calls: z.array(toolCallInput).nullish(),
  tool_call_id: z.string().nullish(),
});
export type ChatMessageInput = z.output<typeof chatMessageSchema>;

const tool = z.looseObject({
  type: z.literal("function"),
  function: z.looseObject({
    name: z.string().min(1),
    description: z.string().nullish(),
    parameters: anyObject.nullish(),
    strict: z.boolean().nullish(),
  }),
});
export type ToolInput = z.output<typeof tool>;

const toolChoice = z.union([
  z.enum(["none", "auto", "required"]),
  z.looseObject({ type: z.literal("function"), function: z.looseObject({ name: z.string() }) }),
]);

export const chatRequestSchema = z.strictObject({
  model: modelField,
  messages: z.array(chatMessageSchema).min(1),
  max_tokens: z.int().min(1).optional().describe("Default: what is left of the context"),
  max_completion_tokens: z.int().min(1).optional().describe("The newer name of max_tokens"),
  n: z.int().min(1).max(128).default(1),
  logprobs: z.boolean().default(false),
  top_logprobs: z.int().min(0).max(100).optional(),
  tools: z.array(tool).optional(),
  tool_choice: toolChoice.optional(),
  parallel_tool_calls: z.boolean().optional(),
  truncate_prompt_tokens: z.int().min(1).optional(),
  chat_template_name: z.string().optional().describe("Which of the model's templates"),
  chat_template_kwargs: anyObject
    .optional()
    .describe(
      "Variables of the template. Without a template: {format: chat|steerlm|qa, attributes, context} of Nemotron's formats",
    ),
  add_generation_prompt: z.boolean().default(true),
  priority: z.int().default(0).describe("Higher goes first"),
  reasoning_effort: z.unknown().optional(),
  verbosity: z.unknown().optional(),
  modalities: z.array(z.literal("text")).optional(),
  ...samplingFields,
  ...constraintFields,
  ...streamFields,
  ...ignoredFields,
});
export type ChatRequest = z.output<typeof chatRequestSchema>;

const toolCall = z.strictObject({
  id: z.string(),
  type: z.literal("function"),
  function: z.strictObject({ name: z.string(), arguments: z.string().describe("JSON") }),
});
export type ToolCall = z.output<typeof toolCall>;

const topLogprob = z.strictObject({
  token: z.string(),
  logprob: z.number(),
  bytes: z.array(z.int()).nullable(),
});
const tokenLogprob = z.strictObject({ ...topLogprob.shape, top_logprobs: z.array(topLogprob) });
export type ChatTokenLogprob = z.output<typeof tokenLogprob>;
const logprobs = z.strictObject({ content: z.array(tokenLogprob), refusal: z.null() });

const finishReason = z.enum(["stop", "length", "tool_calls"]);
export type ChatFinishReason = z.output<typeof finishReason>;

export const chatCompletionSchema = z.strictObject({
  id: z.string(),
  object: z.literal("chat.completion"),
  created: z.int(),
  model: z.string(),
  choices: z.array(
    z.strictObject({
      index: z.int(),
      message: z.strictObject({
        role: z.literal("assistant"),
        content: z.string().nullable(),
        refusal: z.null(),
        tool_calls: z.array(toolCall).optional(),
      }),
      logprobs: logprobs.nullable(),
      finish_reason: finishReason,
    }),
  ),
  usage: usageSchema,
});
export type ChatCompletion = z.output<typeof chatCompletionSchema>;

export const chatChunkSchema = z.strictObject({
  id: z.string(),
  object: z.literal("chat.completion.chunk"),
  created: z.int(),
  model: z.string(),
  choices: z.array(
    z.strictObject({
      index: z.int(),
      delta: z.strictObject({
        role: z.literal("assistant").optional(),
        content: z.string().optional(),
        tool_calls: z.array(z.strictObject({ index: z.int(), ...toolCall.shape })).optional(),
      }),
      logprobs: logprobs.nullable(),
      finish_reason: finishReason.nullable(),
    }),
  ),
  usage: usageSchema.nullish(),
});
export type ChatChunk = z.output<typeof chatChunkSchema>;
