/**
 * A conversation as the text that a model continues: by its own chat template, or in the formats of Nemotron's chat models where it has
 * none. What the server, the command line and the in-process API share.
 */
import { DataError } from "../../base/index.ts";
import type { Tokenizer } from "../tokenizer.ts";
import type { ChatMessage, ChatTemplateOptions, ChatTemplates } from "./chatTemplate.ts";
import {
  holdsTurnMark,
  nemotronChatPrompt,
  nemotronQaPrompt,
  nemotronStop,
  steerLmPrompt,
} from "./nemotronPrompts.ts";

export interface ConversationText {
  text: string;
  /** Stop strings of the format. */
  stops: readonly string[];
  /** Tokens that end an answer, of the format. */
  endTokens: readonly number[];
  /** One newline at the end of an answer belongs to the format. */
  dropsLastNewline: boolean;
}

/** Which of Nemotron's formats: chat for SFT and RLHF models. */
export type NemotronFormat =
  | { format: "chat" }
  | { format: "steerlm"; attributes: Readonly<Record<string, number | string>> }
  | { format: "qa"; context: string };

/** A conversation that a format has no place for. */
export class ConversationError extends DataError {
  /** Which message; undefined: all of them. */
  readonly place: number | undefined;
  /** The sentence without its component and hint. */
  readonly sentence: string;

  constructor(message: string, place: number | undefined, hint?: string) {
    super("chat", message, hint === undefined ? {} : { hint });
    this.place = place;
    this.sentence = message;
  }
}

/** By the model's own templates, which must be there. Throws TokenizerError where the template refuses the conversation. */
export function templateText(
  templates: ChatTemplates,
  messages: readonly ChatMessage[],
  options: ChatTemplateOptions & { name?: string },
): ConversationText {
  return { text: templates.render(messages, options), stops: [], endTokens: [], dropsLastNewline: false };
}

/** In Nemotron's format. Throws ConversationError, DataError. */
export function nemotronText(
  tokenizer: Tokenizer,
  messages: readonly ChatMessage[],
  wanted: NemotronFormat,
): ConversationText {
  const forged = messages.findIndex(({ content }) => content !== null && holdsTurnMark(content));
  if (forged >= 0) {
    const hint = "they would be read as turns of their own";
    throw new ConversationError(
      `expected messages without turn marks, got some in message ${forged}`,
      forged,
      hint,
    );
  }
  const mark = tokenizer.specialTokens.get(nemotronStop);
  const ends = {
    stops: [nemotronStop],
    endTokens: mark === undefined ? [] : [mark],
    dropsLastNewline: true,
  };
  if (wanted.format === "steerlm") return { text: steerLmPrompt(messages, wanted.attributes), ...ends };
  if (wanted.format === "chat") return { text: nemotronChatPrompt(messages), ...ends };
  const question = messages.findLast(({ role }) => role === "user")?.content;
  if (messages.length !== 1 || question === undefined || question === null) {
    throw new ConversationError(
      `expected one question for the qa format, got ${messages.length} messages`,
      undefined,
    );
  }
  const text = nemotronQaPrompt({ context: wanted.context, question });
  return { text, stops: [], endTokens: [], dropsLastNewline: false };
}
