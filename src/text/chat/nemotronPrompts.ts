/**
 * The prompts that the Nemotron-3-8B chat and question-answering models were tuned on. Knows nothing of tokenizers: the marks are
 * matched as text, whether or not a tokenizer has pieces for them.
 * Invariant: nothing of a message is changed; a message that holds a mark would be read as a turn of its own, see `holdsTurnMark`.
 * Source: the cards of nvidia/nemotron-3-8b-chat-4k-sft, -rlhf and -steerlm and nvidia/nemotron-3-8b-qa-4k.
 */
import { DataError } from "../../base/index.ts";
import type { ChatMessage } from "./chatTemplate.ts";

const component = "chat prompt";
const systemMark = "<extra_id_0>";
/** Begins a turn, and so ends the one before it: the stop string of generation. */
export const nemotronStop = "<extra_id_1>";
const attributeMark = "<extra_id_2>";

/** The system line that the SteerLM model was tuned with. */
export const steerLmSystem =
  "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions.";

/** What SteerLM answers are steered by, in the order of the prompt, each from 0 to 4. Default: a helpful answer of good manners. */
export const steerLmDefaults = {
  quality: 4,
  understanding: 4,
  correctness: 4,
  coherence: 4,
  complexity: 4,
  verbosity: 4,
  toxicity: 0,
  humor: 0,
  creativity: 0,
  violence: 0,
  helpfulness: 4,
  not_appropriate: 0,
  hate_speech: 0,
  sexual_content: 0,
  fails_task: 0,
  political_content: 0,
  moral_judgement: 0,
} as const;
export type SteerLmAttributes = Partial<Record<keyof typeof steerLmDefaults, number>> & { lang?: string };

/**
 * The prompt of the SFT and RLHF chat models: turns of user and assistant in alternation, at most one system message before them
 * (without it the system text is empty, as the RLHF card advises). A conversation that ends with the user's turn ends in the
 * beginning of an answer; one that ends with an answer is a training text and ends in the mark behind it. Throws DataError.
 */
export function nemotronChatPrompt(messages: readonly ChatMessage[]): string {
  return turnsOf(messages, { system: "", attributesOf: () => "" });
}

/**
 * The prompt of the SteerLM chat model: as `nemotronChatPrompt`, with the model's own system line by default, and the wanted
 * `attributes` before every answer that has none of its own in a field `attributes`. Throws DataError, also for attributes outside 0
 * to 4.
 */
export function steerLmPrompt(messages: readonly ChatMessage[], attributes: SteerLmAttributes = {}): string {
  const attributesOf = (message: ChatMessage | undefined): string => {
    const own = message?.["attributes"];
    const chosen = typeof own === "object" && own !== null ? own : attributes;
    return `${attributeMark}${steerLmAttributeLine(chosen)}\n`;
  };
  return turnsOf(messages, { system: steerLmSystem, attributesOf });
}

/** "quality:4,…,lang:en". Throws DataError for an unknown attribute or one outside 0 to 4. */
export function steerLmAttributeLine(
  attributes: Readonly<Record<string, unknown>> | SteerLmAttributes,
): string {
  const { lang = "en", ...given }: Record<string, unknown> = { ...attributes };
  for (const [name, value] of Object.entries(given)) {
    if (!Object.hasOwn(steerLmDefaults, name))
      throw new DataError(component, `expected a SteerLM attribute, got '${name}'`, {
        hint: `one of ${Object.keys(steerLmDefaults).join(", ")}`,
      });
    if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value > 4)
      throw new DataError(component, `expected ${name} from 0 to 4, got ${String(value)}`);
  }
  if (typeof lang !== "string") throw new DataError(component, `expected lang as text, got ${String(lang)}`);
  const values = Object.entries({ ...steerLmDefaults, ...given }).map(([name, value]) => `${name}:${value}`);
  return [...values, `lang:${lang}`].join(",");
}

/** The prompt of the question-answering model: a question about a text. It has no marks; generation ends with the document. */
export function nemotronQaPrompt({ context, question }: { context: string; question: string }): string {
  const system =
    "System: This is a chat between a user and an artificial intelligence assistant. The assistant gives helpful, detailed, and " +
    "polite answers to the user's questions based on the context. The assistant should also indicate when the answer cannot be " +
    "found in the context.";
  const user = `User: Please give a full and complete answer for the question. ${question}`;
  return [system, context, user, "Assistant:"].join("\n\n");
}

/** An answer as it was generated, up to the stop string, without the newline that was trained before it. */
export function nemotronAnswer(generated: string): string {
  const [answer] = generated.split(nemotronStop, 1);
  return answer.endsWith("\n") ? answer.slice(0, -1) : answer;
}

/** Whether a message would be taken for several turns; those who take messages from strangers refuse such ones. */
export function holdsTurnMark(content: string): boolean {
  return [systemMark, nemotronStop, attributeMark].some((mark) => content.includes(mark));
}

function turnsOf(
  messages: readonly ChatMessage[],
  format: { system: string; attributesOf: (message: ChatMessage | undefined) => string },
): string {
  const [first] = messages;
  const hasSystem = first?.role === "system";
  const turns = hasSystem ? messages.slice(1) : messages;
  if (turns.length === 0) throw new DataError(component, "expected a user's message, got none");
  const system = hasSystem ? textOf(first) : format.system;
  let text = `${systemMark}System\n${system}\n`;
  turns.forEach((message, i) => {
    const role = i % 2 === 0 ? "user" : "assistant";
    if (message.role !== role)
      throw new DataError(
        component,
        `expected a message of the ${role} in place ${i + 1}, got '${message.role}'`,
        {
          hint: "user and assistant take turns, after at most one system message",
        },
      );
    text +=
      role === "user"
        ? `${nemotronStop}User\n${textOf(message)}\n`
        : `${nemotronStop}Assistant\n${format.attributesOf(message)}${textOf(message)}\n`;
  });
  const endsWithAnswer = turns.length % 2 === 0;
  return (
    text + (endsWithAnswer ? nemotronStop : `${nemotronStop}Assistant\n${format.attributesOf(undefined)}`)
  );
}

function textOf({ role, content }: ChatMessage): string {
  if (content === null) throw new DataError(component, `expected text in the ${role}'s message, got none`);
  return content;
}
