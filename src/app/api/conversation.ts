/**
 * A conversation as the tokens that a model continues: by its own chat template, or in the format of Nemotron's chat models where it
 * has none, as the server does it.
 */
import { DataError } from "../../base/index.ts";
import { holdsTurnMark, nemotronChatPrompt, nemotronStop } from "../../text/index.ts";
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
  const encode = (text: string): number[] => Array.from(tokenizer.encode(text, { specialTokens: "parse" }));
  if (chatTemplates.names.length > 0) {
    const text = chatTemplates.render(messages, { addGenerationPrompt: true });
    return { prompt: encode(text), stop: [], endTokens: [] };
  }
  const forged = messages.findIndex(({ content }) => content !== null && holdsTurnMark(content));
  if (forged >= 0) {
    throw new DataError("chat", `expected messages without turn marks, got some in message ${forged}`, {
      hint: "they would be read as turns of their own",
    });
  }
  const mark = tokenizer.specialTokens.get(nemotronStop);
  // A turn ends in a newline and the mark of the next: neither is part of the answer.
  const stop = [`\n${nemotronStop}`, nemotronStop];
  return { prompt: encode(nemotronChatPrompt(messages)), stop, endTokens: mark === undefined ? [] : [mark] };
}
