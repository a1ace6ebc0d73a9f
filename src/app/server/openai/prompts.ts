/** Prompts of requests as token ids, within the model's context. */
import type { ServedModel } from "../servedModel.ts";
import { Refusal } from "../refusal.ts";

export type PromptInput = string | number[] | string[] | number[][];

/** Bytes that no token of a usual vocabulary exceeds: longer texts are refused without being encoded, which would take the HTTP thread's time. */
const mostBytesPerToken = 256;

export interface PromptOptions {
  /** Keeps the last tokens. */
  truncateTo?: number | undefined;
  addBeginning?: boolean;
  /** The field that is meant in refusals. */
  parameter: string;
}

/** One or several prompts as lists of ids, each of one token or more. Throws a refusal (400). */
export function encodePrompts(model: ServedModel, input: PromptInput, options: PromptOptions): number[][] {
  if (typeof input === "string") return [encodeText(model, input, options)];
  if (input.every((entry) => typeof entry === "number")) return [checkIds(model, input, options)];
  return input.map((entry) =>
    typeof entry === "string"
      ? encodeText(model, entry, options)
      : checkIds(model, typeof entry === "number" ? [entry] : entry, options),
  );
}

/** The ids of a text, its special tokens parsed. Throws a refusal (400). */
export function encodeText(model: ServedModel, text: string, options: PromptOptions): number[] {
  const { tokenizer, engine } = model;
  const { maxContext } = engine.info;
  if (options.truncateTo === undefined && text.length > maxContext * mostBytesPerToken)
    throw tooLong(model, `a text of ${text.length} characters`, options.parameter);
  const ids = Array.from(tokenizer.encode(text, { specialTokens: "parse" }));
  const { bosId } = tokenizer;
  if (options.addBeginning === true && bosId !== undefined && ids[0] !== bosId) ids.unshift(bosId);
  if (ids.length === 0) {
    // An empty prompt asks for any text: the mark between documents stands before it.
    ids.push(bosId ?? tokenizer.eosId);
  }
  return truncate(ids, options);
}

export function checkIds(model: ServedModel, ids: readonly number[], options: PromptOptions): number[] {
  const { vocabSize } = model.tokenizer;
  const stranger = ids.find((id) => id >= vocabSize);
  if (stranger !== undefined) {
    throw new Refusal(400, `${options.parameter}: expected token ids below ${vocabSize}, got ${stranger}`, {
      parameter: options.parameter,
      reason: "invalid_token",
    });
  }
  return truncate([...ids], options);
}

function truncate(ids: number[], { truncateTo }: PromptOptions): number[] {
  return truncateTo === undefined ? ids : ids.slice(-truncateTo);
}

/**
 * How many tokens may be generated: `wanted`, or what the context leaves. Throws a refusal (400) where prompt and answer do not fit, or
 * nothing is left.
 */
export function roomFor(
  model: ServedModel,
  prompt: readonly number[],
  { wanted, parameter }: { wanted: number | undefined; parameter: string },
): number {
  const { maxContext } = model.engine.info;
  const room = maxContext - prompt.length;
  if (room < (wanted ?? 1)) {
    const asked = wanted === undefined ? "" : ` and ${wanted} to generate`;
    throw tooLong(model, `${prompt.length} in the prompt${asked}`, parameter);
  }
  return wanted ?? room;
}

function tooLong({ name, engine }: ServedModel, got: string, parameter: string): Refusal {
  return new Refusal(
    400,
    `${parameter}: expected at most ${engine.info.maxContext} tokens of prompt and answer for ${name}, got ${got}`,
    {
      hint: "shorten it, ask for fewer tokens, or cut it with truncate_prompt_tokens",
      parameter,
      reason: "context_length_exceeded",
    },
  );
}
