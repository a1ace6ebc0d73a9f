/**
 * Records as tokens with a mark on each that the model learns. A text is put together from pieces (the template's own, the prompt's, the
 * answer's), which are encoded one by one, so that no token is half prompt and half answer.
 */
import { DataError } from "../../base/index.ts";
import { nemotronChatPrompt, steerLmPrompt } from "../../text/index.ts";
import type { ChatMessage, ChatTemplates, Tokenizer } from "../../text/index.ts";
import type { RecordPlace, TunedMessage, TuningText } from "./records.ts";

export interface TextPiece {
  text: string;
  isTrained: boolean;
  /** Special tokens written in it count as such: the template's own. */
  parsesSpecial: boolean;
  /** May be cut to make the text fit. */
  isCuttable: boolean;
}

export interface EncodedText {
  tokens: Int32Array;
  /** 1 where the model learns to give this token. */
  isTrained: Uint8Array;
  /** Learnt tokens cut away, and others. */
  numCutAnswer: number;
  numCutPrompt: number;
}

export type ChatFormat = "nemotron" | "steerlm" | "model";

export interface EncodeTextOptions {
  tokenizer: Tokenizer;
  /** Fields in braces, the answer's last: "{input} {output}". */
  promptTemplate: string;
  chat: ChatFormat;
  /** Of the model, for the format "model". */
  chatTemplates?: ChatTemplates | undefined;
  addBos: boolean;
  addEos: boolean;
  /** Learn only answers; else every token but the first. */
  answerOnly: boolean;
  maxLength: number;
  /** Which end of the prompt is cut where a text is too long. */
  cut: "left" | "right";
}

/** The tokens of a text, at most maxLength: first the prompt is cut, then the answer's end. Throws DataError. */
export function encodeText(text: TuningText, place: RecordPlace, options: EncodeTextOptions): EncodedText {
  const { tokenizer, addBos, addEos, answerOnly, maxLength, cut } = options;
  const pieces = piecesOf(text, place, options).map((piece) => ({
    ...piece,
    tokens: [...tokenizer.encode(piece.text, { specialTokens: piece.parsesSpecial ? "parse" : "text" })],
  }));
  const { bosId, eosId } = tokenizer;
  const opening = addBos && bosId !== undefined && pieces[0]?.tokens[0] !== bosId ? [bosId] : [];
  const endsTrained = pieces.at(-1)?.isTrained === true;
  const closing = addEos && endsTrained && pieces.at(-1)?.tokens.at(-1) !== eosId ? [eosId] : [];
  let excess = opening.length + closing.length - maxLength;
  for (const { tokens } of pieces) excess += tokens.length;
  let numCutPrompt = 0;
  for (const piece of pieces) {
    if (excess <= 0 || !piece.isCuttable || piece.isTrained) continue;
    const numCut = Math.min(excess, piece.tokens.length);
    if (cut === "left") piece.tokens.splice(0, numCut);
    else piece.tokens.length -= numCut;
    excess -= numCut;
    numCutPrompt += numCut;
  }
  const all = pieces.flatMap(({ tokens, isTrained }) => tokens.map((token) => ({ token, isTrained })));
  const marked = [
    ...opening.map((token) => ({ token, isTrained: false })),
    ...all,
    ...closing.map((token) => ({ token, isTrained: true })),
  ];
  const kept = marked.slice(0, maxLength);
  return {
    tokens: Int32Array.from(kept, ({ token }) => token),
    isTrained: Uint8Array.from(kept, ({ isTrained }, i) => Number(i > 0 && (isTrained || !answerOnly))),
    numCutAnswer: marked.slice(maxLength).filter(({ isTrained }) => isTrained).length,
    numCutPrompt: numCutPrompt + marked.slice(maxLength).filter(({ isTrained }) => !isTrained).length,
  };
}

function piecesOf(text: TuningText, place: RecordPlace, options: EncodeTextOptions): TextPiece[] {
  switch (text.kind) {
    case "fields":
      return templatePieces(options.promptTemplate, text.fields, place);
    case "halves": {
      const piece = (half: string, isTrained: boolean): TextPiece => ({
        text: half,
        isTrained,
        parsesSpecial: false,
        isCuttable: true,
      });
      return [piece(text.prompt, false), piece(text.completion, true)];
    }
    case "chat":
      return chatPieces(text.messages, place, options);
  }
}

/** NeMo's reading: fields without the spaces round them; a space before a field goes with it. Throws DataError. */
function templatePieces(
  template: string,
  fields: Readonly<Record<string, string>>,
  place: RecordPlace,
): TextPiece[] {
  const parts = template.split(/( *\{\w+\})/).filter((part) => part !== "");
  const names = parts.flatMap((part) => /\{(\w+)\}/.exec(part)?.[1] ?? []);
  const answer = names.at(-1);
  if (answer === undefined || !parts.at(-1)?.endsWith(`{${answer}}`)) {
    throw new DataError(
      "data",
      `expected a prompt template that ends with the answer's field, got '${template}'`,
      {
        hint: 'such as "{input} {output}"',
      },
    );
  }
  return parts.map((part): TextPiece => {
    const name = /\{(\w+)\}/.exec(part)?.[1];
    if (name === undefined) return { text: part, isTrained: false, parsesSpecial: true, isCuttable: false };
    const value = fields[name];
    if (value === undefined) {
      throw new DataError(
        "data",
        `${place.file}:${place.line}: expected the template's field '${name}', got none`,
        {
          hint: `the record has ${Object.keys(fields).join(", ")}`,
          fields: { ...place },
        },
      );
    }
    const stripped = value.replace(/^ +| +$/g, "");
    const space = part.slice(0, part.indexOf("{"));
    return {
      text: stripped === "" ? "" : `${space}${stripped}`,
      isTrained: name === answer,
      parsesSpecial: false,
      isCuttable: true,
    };
  });
}

/** Each turn's share of the whole text: what rendering one message more adds. Throws DataError. */
function chatPieces(
  messages: readonly TunedMessage[],
  place: RecordPlace,
  { chat, chatTemplates }: EncodeTextOptions,
): TextPiece[] {
  const render = (given: readonly ChatMessage[], addGenerationPrompt: boolean): string => {
    if (chat === "nemotron") return nemotronChatPrompt(given);
    if (chat === "steerlm") return steerLmPrompt(given);
    if (chatTemplates === undefined)
      throw new DataError("data", "expected a model with a chat template, got one without", {
        hint: "set data.chat to nemotron or steerlm",
      });
    return chatTemplates.render(given, { addGenerationPrompt });
  };
  const pieces: TextPiece[] = [];
  let done = "";
  const add = (upTo: string, isTrained: boolean): void => {
    if (!upTo.startsWith(done)) {
      throw new DataError(
        "data",
        `${place.file}:${place.line}: expected a chat template that only adds to what it wrote, got one that rewrites earlier turns`,
        { hint: "set data.chat to nemotron, or data.answerOnly to false" },
      );
    }
    if (upTo.length > done.length)
      pieces.push({ text: upTo.slice(done.length), isTrained, parsesSpecial: true, isCuttable: false });
    done = upTo;
  };
  for (const [index, { role, isTrained }] of messages.entries()) {
    if (role !== "assistant") continue;
    // Messages before an answer, as they stand when it is asked for.
    if (index > 0) add(render(messages.slice(0, index), true), false);
    add(render(messages.slice(0, index + 1), false), isTrained);
  }
  if (pieces.length === 0)
    throw new DataError("data", `${place.file}:${place.line}: expected an answer of the assistant, got none`);
  return pieces;
}
