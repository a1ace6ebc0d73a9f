/** `POST /v1/chat/completions`. */
import { chatRequestSchema } from "../../api/openai/index.ts";
import type { ChatChunk, ChatCompletion, ChatRequest, ToolInput } from "../../api/openai/index.ts";
import type { EngineRequest, OutputConstraint } from "../../../infer/index.ts";
import { readJsonBody } from "../http/body.ts";
import type { HttpApp, HttpContext } from "../http/environment.ts";
import { parseBody } from "../http/parse.ts";
import { Refusal } from "../refusal.ts";
import { runRequest } from "../runRequest.ts";
import type { RunEvent } from "../runRequest.ts";
import { resolveModel } from "../serverContext.ts";
import type { ServerContext } from "../serverContext.ts";
import type { ResolvedModel } from "../servedModel.ts";
import { secondsNow, streamAnswer, UsageCounter } from "./answer.ts";
import { chatPromptOf } from "./chatPrompt.ts";
import { ChatWriter } from "./chatWriter.ts";
import type { ChatPiece, ChatWriterOptions } from "./chatWriter.ts";
import { encodeText, roomFor } from "./prompts.ts";
import { constraintOf, newSeed, samplingOf } from "./sampling.ts";
import type { Dialect } from "./sampling.ts";

export function mountChat(app: HttpApp, server: ServerContext): void {
  app.post("/v1/chat/completions", (c) => chat(server, c, "openai"));
  app.post("/v1/chat/completions/", (c) => chat(server, c, "nemo"));
}

interface Plan {
  model: ResolvedModel;
  requests: EngineRequest[];
  makeWriter: (choice: number) => ChatWriter;
  withLogprobs: boolean;
  name: string;
}

async function chat(server: ServerContext, c: HttpContext, dialect: Dialect): Promise<Response> {
  const request = parseBody("chat", chatRequestSchema, await readJsonBody(server, c));
  const context = c.get("request");
  const plan = planOf(server, c, { request, dialect });
  const events = await runRequest(server, context, { model: plan.model, requests: plan.requests });
  return request.stream
    ? streamed(c, plan, { events, includesUsage: request.stream_options?.include_usage === true })
    : c.json(await whole(context.id, plan, events));
}

function planOf(
  server: ServerContext,
  c: HttpContext,
  { request, dialect }: { request: ChatRequest; dialect: Dialect },
): Plan {
  const context = c.get("request");
  const model = resolveModel(server, request.model);
  const { tokenizer, engine } = model.model;
  const tools = toolUseOf(request);
  const format = chatPromptOf(model.model, {
    messages: request.messages,
    tools: tools.shown,
    templateName: request.chat_template_name,
    variables: request.chat_template_kwargs,
    addGenerationPrompt: request.add_generation_prompt,
  });
  if (server.options.log.prompts) context.facts.prompts = [format.text];
  const prompt = encodeText(model.model, format.text, {
    parameter: "messages",
    truncateTo: request.truncate_prompt_tokens,
  });
  const wanted = request.max_completion_tokens ?? request.max_tokens;
  const maxTokens = roomFor(model.model, prompt, { wanted, parameter: "messages" });
  const seed = request.seed ?? newSeed();
  const constraint = tools.constraint ?? constraintOf(request);
  const requests = Array.from({ length: request.n }, (_, i): EngineRequest => {
    const { vocabSize } = engine.info;
    const { stops } = format;
    const { sampling, endTokens } = samplingOf(request, {
      maxTokens,
      seed: seed + i,
      vocabSize,
      stops,
      dialect,
    });
    return {
      prompt,
      sampling,
      endTokens: [...endTokens, ...format.endTokens],
      numLogprobs: request.logprobs ? (request.top_logprobs ?? 0) : undefined,
      constraint,
      priority: request.priority,
    };
  });
  const makeWriter = (choice: number) =>
    new ChatWriter({
      tokenizer,
      id: `${context.id}_${choice}`,
      withLogprobs: request.logprobs,
      dropsLastNewline: format.dropsLastNewline,
      tools: tools.parsing,
    });
  return {
    model,
    requests,
    makeWriter,
    withLogprobs: request.logprobs,
    name: request.model ?? model.model.name,
  };
}

/** What the choice of tools means: which the template is shown, how calls are found, and what holds the answer to one. */
interface ToolUse {
  shown: readonly ToolInput[] | undefined;
  parsing: ChatWriterOptions["tools"];
  constraint: OutputConstraint | undefined;
}

function toolUseOf({ tools, tool_choice: choice, response_format: format }: ChatRequest): ToolUse {
  if (tools === undefined || tools.length === 0 || choice === "none") {
    if (typeof choice === "object" || choice === "required")
      throw missingTool("tools: expected some, got none");
    return { shown: undefined, parsing: { kind: "none" }, constraint: undefined };
  }
  const names = tools.map((tool) => tool.function.name);
  if (choice === undefined || choice === "auto")
    return { shown: tools, parsing: { kind: "parse", names }, constraint: undefined };
  if (format !== undefined && format.type !== "text") {
    throw new Refusal(400, "expected one constraint on the answer, got response_format and tool_choice", {
      parameter: "tool_choice",
    });
  }
  const name = typeof choice === "object" ? choice.function.name : undefined;
  const forced = name === undefined ? tools : tools.filter((tool) => tool.function.name === name);
  if (forced.length === 0)
    throw missingTool(`tool_choice: expected one of ${names.join(", ")}, got '${name}'`);
  const schema = name === undefined ? { anyOf: forced.map(callSchema) } : parametersOf(forced[0]);
  return { shown: tools, parsing: { kind: "forced", name }, constraint: { kind: "json-schema", schema } };
}

function missingTool(message: string): Refusal {
  return new Refusal(400, message, { parameter: "tool_choice", reason: "invalid_value" });
}

function parametersOf(tool: ToolInput): unknown {
  return tool.function.parameters ?? { type: "object" };
}

function callSchema(tool: ToolInput): unknown {
  return {
    type: "object",
    properties: { name: { const: tool.function.name }, arguments: parametersOf(tool) },
    required: ["name", "arguments"],
    additionalProperties: false,
  };
}

function logprobsOf(piece: ChatPiece, plan: Plan): ChatChunk["choices"][number]["logprobs"] {
  return plan.withLogprobs ? { content: piece.logprobs, refusal: null } : null;
}

async function whole(id: string, plan: Plan, events: AsyncIterable<RunEvent>): Promise<ChatCompletion> {
  const writers = plan.requests.map((_, choice) => plan.makeWriter(choice));
  const pieces: ChatPiece[][] = writers.map(() => []);
  const counter = new UsageCounter(plan.requests.length);
  for await (const { sequence, event } of events) {
    pieces[sequence].push(writers[sequence].push(event));
    if (event.type === "end") counter.add(sequence, event);
  }
  return {
    id: `chatcmpl-${id}`,
    object: "chat.completion",
    created: secondsNow(),
    model: plan.name,
    choices: pieces.map((own, index) => {
      const text = own.map((piece) => piece.text).join("");
      const calls = own.flatMap((piece) => piece.calls);
      return {
        index,
        message: {
          role: "assistant",
          content: calls.length > 0 && text.trim() === "" ? null : text,
          refusal: null,
          ...(calls.length > 0 ? { tool_calls: calls } : {}),
        },
        logprobs: plan.withLogprobs
          ? { content: own.flatMap((piece) => piece.logprobs), refusal: null }
          : null,
        finish_reason: own.at(-1)?.finishReason ?? "stop",
      };
    }),
    usage: counter.usage,
  };
}

function streamed(
  c: HttpContext,
  plan: Plan,
  { events, includesUsage }: { events: AsyncIterableIterator<RunEvent>; includesUsage: boolean },
): Response {
  const writers = plan.requests.map((_, choice) => plan.makeWriter(choice));
  const numCalls = writers.map(() => 0);
  const isBegun = writers.map(() => false);
  const counter = new UsageCounter(plan.requests.length);
  const envelope = {
    id: `chatcmpl-${c.get("request").id}`,
    object: "chat.completion.chunk" as const,
    created: secondsNow(),
    model: plan.name,
  };
  const usage = includesUsage ? { usage: null } : {};
  return streamAnswer<ChatChunk>(c, events, {
    chunksOf: ({ sequence: index, event }) => {
      const piece = writers[index].push(event);
      if (event.type === "end") counter.add(index, event);
      const { text, calls, finishReason } = piece;
      if (text === "" && calls.length === 0 && piece.logprobs.length === 0 && finishReason === null)
        return [];
      const toolCalls = calls.map((call) => ({ index: numCalls[index]++, ...call }));
      const delta = {
        ...(isBegun[index] ? {} : { role: "assistant" as const }),
        ...(text !== "" || !isBegun[index] ? { content: text } : {}),
        ...(calls.length > 0 ? { tool_calls: toolCalls } : {}),
      };
      isBegun[index] = true;
      const choice = { index, delta, logprobs: logprobsOf(piece, plan), finish_reason: finishReason };
      return [{ ...envelope, choices: [choice], ...usage }];
    },
    last: () => (includesUsage ? [{ ...envelope, choices: [], usage: counter.usage }] : []),
  });
}
