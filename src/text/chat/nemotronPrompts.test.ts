import { describe, expect, it } from "vitest";
import {
  holdsTurnMark,
  nemotronAnswer,
  nemotronChatPrompt,
  nemotronQaPrompt,
  nemotronStop,
  steerLmAttributeLine,
  steerLmPrompt,
} from "./nemotronPrompts.ts";

const user = (content: string) => ({ role: "user", content });
const assistant = (content: string) => ({ role: "assistant", content });
const system = { role: "system", content: "Be brief." };
// As the SteerLM card prints it.
const cardAttributes =
  "quality:4,understanding:4,correctness:4,coherence:4,complexity:4,verbosity:4,toxicity:0,humor:0,creativity:0,violence:0," +
  "helpfulness:4,not_appropriate:0,hate_speech:0,sexual_content:0,fails_task:0,political_content:0,moral_judgement:0,lang:en";

describe("nemotronChatPrompt", () => {
  it("is the cards' text with and without a system message", () => {
    expect(nemotronChatPrompt([system, user("Hi")])).toBe(
      "<extra_id_0>System\nBe brief.\n<extra_id_1>User\nHi\n<extra_id_1>Assistant\n",
    );
    expect(nemotronChatPrompt([user("Hi")])).toBe(
      "<extra_id_0>System\n\n<extra_id_1>User\nHi\n<extra_id_1>Assistant\n",
    );
  });

  it("repeats turns, and ends a training text behind the answer", () => {
    const begin = "<extra_id_0>System\n\n<extra_id_1>User\nHi\n<extra_id_1>Assistant\nAhoy\n<extra_id_1>";
    expect(nemotronChatPrompt([user("Hi"), assistant("Ahoy")])).toBe(begin);
    expect(nemotronChatPrompt([user("Hi"), assistant("Ahoy"), user("Why?")])).toBe(
      `${begin}User\nWhy?\n<extra_id_1>Assistant\n`,
    );
  });

  it("refuses turns out of order and messages without text", () => {
    expect(() => nemotronChatPrompt([])).toThrow("expected a user's message, got none");
    expect(() => nemotronChatPrompt([system])).toThrow("expected a user's message, got none");
    expect(() => nemotronChatPrompt([user("a"), user("b")])).toThrow(/the assistant in place 2, got 'user'/);
    expect(() => nemotronChatPrompt([assistant("a")])).toThrow(/the user in place 1, got 'assistant'/);
    expect(() => nemotronChatPrompt([user("a"), system])).toThrow(/got 'system'/);
    expect(() => nemotronChatPrompt([{ role: "user", content: null }])).toThrow(/text in the user's message/);
  });

  it("takes an answer out of what was generated", () => {
    expect(nemotronAnswer(`Ahoy.\n\n${nemotronStop}User\nmore`)).toBe("Ahoy.\n");
    expect(nemotronAnswer("Ahoy.")).toBe("Ahoy.");
    expect([holdsTurnMark("a <extra_id_1>User"), holdsTurnMark("a <extra_id_9>")]).toEqual([true, false]);
  });
});

describe("steerLmPrompt", () => {
  it("is the card's text", () => {
    expect(steerLmPrompt([user("Hi")])).toBe(
      "<extra_id_0>System\nA chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, " +
        "detailed, and polite answers to the user's questions.\n<extra_id_1>User\nHi\n<extra_id_1>Assistant\n" +
        `<extra_id_2>${cardAttributes}\n`,
    );
  });

  it("puts wanted attributes before the answers, and an answer's own before it", () => {
    const own = { ...assistant("Ahoy"), attributes: { humor: 3, lang: "de" } };
    const prompt = steerLmPrompt([system, user("Hi"), own, user("Why?")], { verbosity: 0 });
    const wanted = cardAttributes.replace("verbosity:4", "verbosity:0");
    const of = cardAttributes.replace("humor:0", "humor:3").replace("lang:en", "lang:de");
    expect(prompt).toBe(
      `<extra_id_0>System\nBe brief.\n<extra_id_1>User\nHi\n<extra_id_1>Assistant\n<extra_id_2>${of}\nAhoy\n` +
        `<extra_id_1>User\nWhy?\n<extra_id_1>Assistant\n<extra_id_2>${wanted}\n`,
    );
  });

  it("refuses attributes that there are not", () => {
    expect(() => steerLmAttributeLine({ wit: 4 })).toThrow(/a SteerLM attribute, got 'wit'/);
    expect(() => steerLmAttributeLine({ humor: 5 })).toThrow("expected humor from 0 to 4, got 5");
    expect(() => steerLmAttributeLine({ humor: 1.5 })).toThrow("got 1.5");
    expect(() => steerLmAttributeLine({ lang: 3 })).toThrow("expected lang as text");
  });
});

describe("nemotronQaPrompt", () => {
  it("is the card's text", () => {
    expect(nemotronQaPrompt({ context: "The ship has two masts.", question: "How many masts?" })).toBe(
      "System: This is a chat between a user and an artificial intelligence assistant. The assistant gives helpful, detailed, and " +
        "polite answers to the user's questions based on the context. The assistant should also indicate when the answer cannot be " +
        "found in the context.\n\nThe ship has two masts.\n\n" +
        "User: Please give a full and complete answer for the question. How many masts?\n\nAssistant:",
    );
  });
});
