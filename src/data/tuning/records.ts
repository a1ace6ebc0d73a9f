/**
 * Records of tuning data: JSON lines in the forms that people have them in, read into three kinds. All records of a file must be of one
 * form; what is wrong is told by file and line.
 *
 * Sources: NeMo (gpt_sft_dataset.py, gpt_sft_chat_dataset.py), ShareGPT, TRL's dataset formats.
 */
import { DataError, readText } from "../../base/index.ts";
import type { ChatMessage } from "../../text/index.ts";

/** A message, and whether the model learns it. */
export interface TunedMessage extends ChatMessage {
  isTrained: boolean;
}

/** What a text is made of: fields for a prompt template, plain halves, or a conversation. */
export type TuningText =
  | { kind: "fields"; fields: Readonly<Record<string, string>> }
  | { kind: "halves"; prompt: string; completion: string }
  | { kind: "chat"; messages: readonly TunedMessage[] };

export interface RecordPlace {
  file: string;
  line: number;
}

/** What a record says, without where it stands. */
type RecordBody =
  | { kind: "text"; text: TuningText }
  | {
      kind: "preference";
      chosen: TuningText;
      rejected: TuningText;
      chosenReward?: number;
      rejectedReward?: number;
    }
  | { kind: "unpaired"; text: TuningText; isDesirable: boolean };

export type TuningRecord = RecordPlace & RecordBody;

type Fields = Readonly<Record<string, unknown>>;

function fail(place: RecordPlace, message: string, hint?: string): DataError {
  const { file, line } = place;
  return new DataError("data", `${file}:${line}: ${message}`, {
    ...(hint === undefined ? {} : { hint }),
    fields: { file, line },
  });
}

/** Reads a file of records. Throws FileError, DataError. */
export function readTuningRecords(file: string): TuningRecord[] {
  const records: TuningRecord[] = [];
  let first: { form: FormName; line: number } | undefined;
  for (const [index, text] of readText("data", file).split("\n").entries()) {
    if (text.trim() === "") continue;
    const place = { file, line: index + 1 };
    const fields = parseObject(text, place);
    const form = formOf(fields, place);
    first ??= { form, line: place.line };
    if (form !== first.form)
      throw fail(place, `expected ${first.form} as in line ${first.line}, got ${form}`, "one form per file");
    records.push({ ...place, ...readers[form](fields, place) });
  }
  if (records.length === 0) throw new DataError("data", `expected records in ${file}, got none`);
  return records;
}

function parseObject(text: string, place: RecordPlace): Fields {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw fail(place, `expected a JSON object, got ${text.slice(0, 60)}`, "one JSON object per line");
  }
  if (isFields(value)) return value;
  throw fail(place, `expected a JSON object, got ${text.slice(0, 60)}`);
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const forms = {
  preference: ["chosen", "rejected"],
  "preference of NeMo": ["prompt", "chosen_response", "rejected_response"],
  unpaired: ["prompt", "completion", "label"],
  "prompt and completion": ["prompt", "completion"],
  messages: ["messages"],
  conversations: ["conversations"],
  "input and output": ["input", "output"],
} as const;
type FormName = keyof typeof forms;

function isFormName(name: string): name is FormName {
  return Object.hasOwn(forms, name);
}

function formOf(fields: Fields, place: RecordPlace): FormName {
  const found = Object.entries(forms).find(([, keys]) => keys.every((key) => key in fields))?.[0];
  if (found !== undefined && isFormName(found)) return found;
  throw fail(
    place,
    `expected a known form, got the fields ${Object.keys(fields).join(", ") || "of an empty object"}`,
    "input and output; prompt and completion; messages; conversations; prompt, chosen and rejected; prompt, completion and label",
  );
}

type Reader = (fields: Fields, place: RecordPlace) => RecordBody;

const readers: Readonly<Record<FormName, Reader>> = {
  "input and output": (fields, place) => ({
    kind: "text",
    text: { kind: "fields", fields: textFields(fields, place) },
  }),
  "prompt and completion": (fields, place) => ({
    kind: "text",
    text: answered(fields["prompt"], fields["completion"], place),
  }),
  messages: (fields, place) => ({
    kind: "text",
    text: { kind: "chat", messages: messagesOf(fields["messages"], place) },
  }),
  conversations: (fields, place) => ({ kind: "text", text: conversation(fields, place) }),
  preference: (fields, place) => ({
    kind: "preference",
    ...preferred(fields, place),
    ...rewards(fields, place),
  }),
  "preference of NeMo": (fields, place) => ({
    kind: "preference",
    chosen: answered(fields["prompt"], fields["chosen_response"], place),
    rejected: answered(fields["prompt"], fields["rejected_response"], place),
    ...rewards(fields, place),
  }),
  unpaired: (fields, place) => {
    const { label } = fields;
    if (typeof label !== "boolean")
      throw fail(place, `expected label to be true or false, got ${JSON.stringify(label)}`);
    return {
      kind: "unpaired",
      text: answered(fields["prompt"], fields["completion"], place),
      isDesirable: label,
    };
  },
};

function textFields(fields: Fields, place: RecordPlace): Record<string, string> {
  return Object.fromEntries(
    Object.entries(fields).flatMap(([name, value]) => {
      if (typeof value === "string") return [[name, value]];
      if (name === "input" || name === "output")
        throw fail(place, `expected ${name} as text, got ${JSON.stringify(value).slice(0, 60)}`);
      return [];
    }),
  );
}

/** A prompt with an answer, both texts or both lists of messages. */
function answered(prompt: unknown, completion: unknown, place: RecordPlace): TuningText {
  if (typeof prompt === "string" && typeof completion === "string")
    return { kind: "halves", prompt, completion };
  if (Array.isArray(prompt) && (Array.isArray(completion) || typeof completion === "string")) {
    const answer: unknown =
      typeof completion === "string" ? [{ role: "assistant", content: completion }] : completion;
    const before = messagesOf(prompt, place).map((message) => ({ ...message, isTrained: false }));
    return { kind: "chat", messages: [...before, ...messagesOf(answer, place)] };
  }
  throw fail(place, "expected prompt and answer as texts or as lists of messages, got something else");
}

/** Also without a prompt: then chosen and rejected are whole conversations, or texts that begin alike. */
function preferred(fields: Fields, place: RecordPlace): { chosen: TuningText; rejected: TuningText } {
  const { prompt, chosen, rejected } = fields;
  if (prompt !== undefined)
    return { chosen: answered(prompt, chosen, place), rejected: answered(prompt, rejected, place) };
  if (typeof chosen === "string" && typeof rejected === "string") {
    let shared = 0;
    while (shared < Math.min(chosen.length, rejected.length) && chosen[shared] === rejected[shared]) shared++;
    // Not within a word: its pieces would not be those of the whole.
    shared = chosen.slice(0, shared).lastIndexOf(" ") + 1;
    const halves = (text: string): TuningText => ({
      kind: "halves",
      prompt: text.slice(0, shared),
      completion: text.slice(shared),
    });
    return { chosen: halves(chosen), rejected: halves(rejected) };
  }
  const lastOnly = (value: unknown): TuningText => ({
    kind: "chat",
    messages: messagesOf(value, place).map((message, i, all) => ({
      ...message,
      isTrained: i === all.length - 1,
    })),
  });
  return { chosen: lastOnly(chosen), rejected: lastOnly(rejected) };
}

function rewards(fields: Fields, place: RecordPlace): { chosenReward?: number; rejectedReward?: number } {
  const { chosen_reward: chosenReward, rejected_reward: rejectedReward } = fields;
  if (chosenReward === undefined && rejectedReward === undefined) return {};
  if (typeof chosenReward === "number" && typeof rejectedReward === "number")
    return { chosenReward, rejectedReward };
  throw fail(place, "expected chosen_reward and rejected_reward as numbers, got something else");
}

/** OpenAI's messages: the assistant's are learnt. */
function messagesOf(value: unknown, place: RecordPlace): TunedMessage[] {
  if (!Array.isArray(value) || value.length === 0) throw fail(place, "expected a list of messages, got none");
  return value.map((entry: unknown, index): TunedMessage => {
    if (!isFields(entry) || typeof entry["role"] !== "string")
      throw fail(
        place,
        `expected message ${index + 1} to have a role, got ${JSON.stringify(entry).slice(0, 60)}`,
      );
    const { role, content } = entry;
    if (typeof content !== "string" && content !== null)
      throw fail(
        place,
        `expected message ${index + 1} to have a text, got ${JSON.stringify(content) ?? "none"}`,
      );
    return { ...entry, role, content, isTrained: role === "assistant" };
  });
}

const roles: Readonly<Record<string, string>> = {
  system: "system",
  human: "user",
  user: "user",
  gpt: "assistant",
  chatgpt: "assistant",
  assistant: "assistant",
  tool: "tool",
};

/** NeMo's conversations, with the speakers in `mask` not learnt, and ShareGPT's. */
function conversation(fields: Fields, place: RecordPlace): TuningText {
  const { conversations, system, mask } = fields;
  if (!Array.isArray(conversations) || conversations.length === 0)
    throw fail(place, "expected conversations as a list of turns, got none");
  if (mask !== undefined && typeof mask !== "string")
    throw fail(place, `expected mask as names of speakers, got ${JSON.stringify(mask)}`);
  const masked = mask?.split(",").map((name) => name.trim().toLowerCase());
  const turns = conversations.map((turn: unknown, index): TunedMessage => {
    if (!isFields(turn) || typeof turn["from"] !== "string" || typeof turn["value"] !== "string")
      throw fail(
        place,
        `expected turn ${index + 1} to have from and value, got ${JSON.stringify(turn).slice(0, 60)}`,
      );
    const speaker = turn["from"].toLowerCase();
    const role = roles[speaker];
    if (role === undefined)
      throw fail(
        place,
        `expected a speaker, got '${turn["from"]}'`,
        `one of ${Object.keys(roles).join(", ")}`,
      );
    const isTrained = masked === undefined ? role === "assistant" : !masked.includes(speaker);
    const attributes = typeof turn["label"] === "string" ? attributesOf(turn["label"], place) : undefined;
    return { role, content: turn["value"], isTrained, ...(attributes === undefined ? {} : { attributes }) };
  });
  const opening: TunedMessage[] =
    typeof system === "string" && system !== ""
      ? [{ role: "system", content: system, isTrained: false }]
      : [];
  return { kind: "chat", messages: [...opening, ...turns] };
}

/** SteerLM's label: "quality:4,toxicity:0,lang:en". */
function attributesOf(label: string, place: RecordPlace): Record<string, number | string> {
  return Object.fromEntries(
    label.split(",").map((entry) => {
      const [name, value, more] = entry.split(":");
      if (value === undefined || more !== undefined)
        throw fail(place, `expected a label such as quality:4,toxicity:0, got '${label}'`);
      const number = Number(value);
      return [name.trim(), Number.isNaN(number) ? value.trim() : number];
    }),
  );
}
