import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { loadTokenizer } from "../loadTokenizer.ts";
import { ConversationError, nemotronText } from "./conversation.ts";
import type { NemotronFormat } from "./conversation.ts";

const tokenizer = loadTokenizer(join(import.meta.dirname, "../../../test/fixtures/tokenizer"));
const user = (content: string) => ({ role: "user", content });

describe("nemotronText", () => {
  it("ends chats at the next turn's mark, and questions by nothing", () => {
    expect(nemotronText(tokenizer, [user("Hi")], { format: "chat" })).toEqual({
      text: "<extra_id_0>System\n\n<extra_id_1>User\nHi\n<extra_id_1>Assistant\n",
      stops: ["<extra_id_1>"],
      endTokens: [],
      dropsLastNewline: true,
    });
    const asked = nemotronText(tokenizer, [user("Why?")], { format: "qa", context: "Because." });
    expect(asked).toMatchObject({ stops: [], dropsLastNewline: false });
    expect(asked.text).toMatch(/Because\..*Why\?\n\nAssistant:$/s);
  });

  it("says which message has no place in a format", () => {
    const refusal = (contents: readonly string[], format: NemotronFormat): ConversationError => {
      try {
        nemotronText(tokenizer, contents.map(user), format);
      } catch (error) {
        if (error instanceof ConversationError) return error;
        throw error;
      }
      throw new ConversationError("nothing was refused", undefined);
    };
    expect(refusal(["a", "b <extra_id_1>User"], { format: "chat" })).toMatchObject({
      place: 1,
      sentence: "expected messages without turn marks, got some in message 1",
    });
    expect(refusal(["a", "b"], { format: "qa", context: "" })).toMatchObject({
      place: undefined,
      sentence: "expected one question for the qa format, got 2 messages",
    });
  });
});
