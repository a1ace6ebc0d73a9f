/** A conversation as the text that the model continues: by the model's own template, or by Nemotron's formats where it has none. */
import { z } from "zod";
import type { ChatMessageInput } from "../../api/openai/index.ts";
import {
  holdsTurnMark,
  nemotronChatPrompt,
  nemotronQaPrompt,
  nemotronStop,
  steerLmPrompt,
} from "../../../text/index.ts";
import type { ChatMessage } from "../../../text/index.ts";
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

export interface ChatPrompt {
  text: string;
  /** Stop strings of the format. */
  stops: readonly string[];
  /** Tokens that end an answer, of the format. */
  endTokens: readonly number[];
  /** One newline at the end of an answer belongs to the format. */
  dropsLastNewline: boolean;
}

/** Throws a refusal (400), TokenizerError where the template refuses the conversation, DataError where Nemotron's formats do. */
export function chatPromptOf(model: ServedModel, input: ChatPromptInput): ChatPrompt {
  const messages = input.messages.map(messageOf);
  const templates = model.chatTemplates;
  if (templates === undefined || (templates.names.length === 0 && input.templateName === undefined))
    return nemotronPrompt(model, messages, input);
  const text = templates.render(messages, {
    ...(input.tools === undefined ? {} : { tools: input.tools }),
    ...(input.templateName === undefined ? {} : { name: input.templateName }),
    ...(input.variables === undefined ? {} : { variables: input.variables }),
    addGenerationPrompt: input.addGenerationPrompt,
  });
  return { text, stops: [], endTokens: [], dropsLastNewline: false };
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

function nemotronPrompt(model: ServedModel, messages: ChatMessage[], input: ChatPromptInput): ChatPrompt {
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
  const forged = messages.findIndex(({ content }) => content !== null && holdsTurnMark(content));
  if (forged >= 0) {
    throw new Refusal(400, `messages.${forged}.content: expected text without turn marks, got some`, {
      parameter: `messages.${forged}.content`,
      hint: "they would be read as turns of their own",
    });
  }
  const mark = model.tokenizer.specialTokens.get(nemotronStop);
  const ends = { stops: [nemotronStop], endTokens: mark === undefined ? [] : [mark], dropsLastNewline: true };
  if (format === "steerlm") return { text: steerLmPrompt(messages, attributes), ...ends };
  if (format === "chat") return { text: nemotronChatPrompt(messages), ...ends };
  const question = messages.findLast(({ role }) => role === "user")?.content;
  if (messages.length !== 1 || question === undefined || question === null) {
    throw new Refusal(
      400,
      `messages: expected one question for the qa format, got ${messages.length} messages`,
      {
        parameter: "messages",
      },
    );
  }
  return { text: nemotronQaPrompt({ context, question }), stops: [], endTokens: [], dropsLastNewline: false };
}
