/**
 * A conversation as the tokens that a model continues, and what ends the answer: as the server does it.
 */
import { nemotronText, templateText } from "../../text/index.ts";
import type { ChatMessage, ChatTemplates, Tokenizer } from "../../text/index.ts";

export interface ConversationPrompt {
  prompt: number[];
  /** Texts that end the answer, of the format. */
  stop: readonly string[];
  /** Tokens that end it, besides the model's own. */
  endTokens: readonly number[];
}

/** Throws TokenizerError where the template refuses the conversation, DataError where Nemotron's format has no place for it. */
export function conversationPrompt(
  { tokenizer, chatTemplates }: { tokenizer: Tokenizer; chatTemplates: ChatTemplates },
  messages: readonly ChatMessage[],
): ConversationPrompt {
  const { text, stops, endTokens, dropsLastNewline } =
    chatTemplates.names.length > 0
      ? templateText(chatTemplates, messages, { addGenerationPrompt: true })
      : nemotronText(tokenizer, messages, { format: "chat" });
  return {
    prompt: Array.from(tokenizer.encode(text, { specialTokens: "parse" })),
    stop: dropsLastNewline ? stops.flatMap((stop) => [`\n${stop}`, stop]) : stops,
    endTokens,
  };
}
