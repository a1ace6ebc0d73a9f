/** A conversation as the text that the model continues: by the model's own template, or by Nemotron's formats where it has none. */
import { z } from "zod";
import type { ChatMessageInput } from "../../api/openai/index.ts";
import { ConversationError, nemotronText, templateText } from "../../../text/index.ts";
import type { ChatMessage, ConversationText, NemotronFormat } from "../../../text/index.ts";
import { parseBody } from "../http/parse.ts";
import { Refusal } from "../refusal.ts";
import type { ServedModel } from "../servedModel.ts";

export interface ChatPromptInput {
  messages: readonly ChatMessageInput[];
  tools?: readonly unknown[] | undefined;
  templateName?: string | undefined;
  variables?: Readonly<Record<string, unknown>> | undefined;
  addGenerationPrompt: boolean;
}

/** Throws a refusal (400), TokenizerError where the template refuses the conversation, DataError where Nemotron's formats do. */
export function chatPromptOf(model: ServedModel, input: ChatPromptInput): ConversationText {
  const messages = input.messages.map(messageOf);
  const templates = model.chatTemplates;
  if (templates === undefined || (templates.names.length === 0 && input.templateName === undefined))
    return nemotronPrompt(model, messages, input);
  return templateText(templates, messages, {
    ...(input.tools === undefined ? {} : { tools: input.tools }),
    ...(input.templateName === undefined ? {} : { name: input.templateName }),
    ...(input.variables === undefined ? {} : { variables: input.variables }),
    addGenerationPrompt: input.addGenerationPrompt,
  });
}

/** Parts joined to one text; arguments of calls as objects, which is what templates take. Throws a refusal for what is no text. */
function messageOf(message: ChatMessageInput, place: number): ChatMessage {
  const { content, tool_calls: calls, ...others } = message;
  const parsedCalls = calls?.map((call) => ({
    ...call,
    function: { ...call.function, arguments: argumentsOf(call.function.arguments, place) },
  }));
  const given = Object.fromEntries(Object.entries(others).filter(([, value]) => value !== null));
  const text =
    typeof content === "string" ? content : (content?.map((part) => partText(part, place)).join("") ?? null);
  return {
    ...given,
    role: message.role === "developer" ? "system" : message.role,
    content: text,
    ...(parsedCalls === undefined ? {} : { tool_calls: parsedCalls }),
  };
}

function partText(part: { type: string; text?: unknown }, place: number): string {
  if ((part.type === "text" || part.type === "refusal") && typeof part.text === "string") return part.text;
  throw new Refusal(
    400,
    `messages.${place}.content: expected parts of text, got one of type '${part.type.slice(0, 80)}'`,
    {
      parameter: `messages.${place}.content`,
      hint: "these models read text alone",
      reason: "invalid_value",
    },
  );
}

function argumentsOf(given: string | Record<string, unknown>, place: number): unknown {
  if (typeof given !== "string") return given;
  if (given.trim() === "") return {};
  try {
    return JSON.parse(given);
  } catch (error) {
    throw new Refusal(400, `messages.${place}.tool_calls: expected arguments in JSON, got other text`, {
      parameter: `messages.${place}.tool_calls`,
      cause: error,
    });
  }
}

const nemotronVariables = z.strictObject({
  /** chat: SFT and RLHF models. */
  format: z.enum(["chat", "steerlm", "qa"]).default("chat"),
  /** What SteerLM answers are steered by. */
  attributes: z.record(z.string(), z.union([z.number(), z.string()])).default({}),
  /** What QA answers are drawn from. */
  context: z.string().default(""),
});

function nemotronPrompt(
  model: ServedModel,
  messages: ChatMessage[],
  input: ChatPromptInput,
): ConversationText {
  const { format, attributes, context } = parseBody(
    "chat_template_kwargs",
    nemotronVariables,
    input.variables ?? {},
  );
  if (input.tools !== undefined && input.tools.length > 0) {
    throw new Refusal(400, "tools: expected none for a model without a chat template, got some", {
      parameter: "tools",
      hint: "Nemotron's own formats have no place for them",
    });
  }
  const wanted: NemotronFormat =
    format === "steerlm" ? { format, attributes } : format === "qa" ? { format, context } : { format };
  try {
    return nemotronText(model.tokenizer, messages, wanted);
  } catch (error) {
    if (!(error instanceof ConversationError)) throw error;
    const parameter = error.place === undefined ? "messages" : `messages.${error.place}.content`;
    throw new Refusal(400, `${parameter}: ${error.sentence}`, {
      parameter,
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      cause: error,
    });
  }
}
