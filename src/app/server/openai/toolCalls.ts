/**
 * Calls of tools in what a model writes, found as the text arrives. The common formats: <tool_call>{"name", "arguments"}</tool_call>
 * (Hermes, Qwen), <toolcall>…</toolcall> (Nemotron), [TOOL_CALLS][{"name", "arguments"}, …] and [TOOL_CALLS]name{…} (Mistral), and an
 * answer that is nothing but {"name", "parameters"}, with or without <|python_tag|> before it, several joined by ";" (Llama 3).
 * Invariant: text that turns out not to be a call is given as text, nothing is lost.
 */
import { z } from "zod";

export interface ParsedCall {
  name: string;
  /** JSON. */
  arguments: string;
}

/** What became certain: text for the reader, and whole calls. */
export interface ToolText {
  text: string;
  calls: ParsedCall[];
}

const pairs = [
  { open: "<tool_call>", close: "</tool_call>" },
  { open: "<toolcall>", close: "</toolcall>" },
] as const;
/** From these on all is calls. */
const openEnded = ["[TOOL_CALLS]", "<|python_tag|>"] as const;
const marks = [...pairs.map(({ open }) => open), ...openEnded];

/** Texts that tokenizers keep as special tokens, which decoding leaves out. */
export const toolMarks = [...marks, ...pairs.map(({ close }) => close), "[ARGS]", "[CALL_ID]"] as const;

const callSchema = z.object({
  name: z.string().min(1),
  arguments: z.union([z.record(z.string(), z.unknown()), z.string()]).optional(),
  parameters: z.union([z.record(z.string(), z.unknown()), z.string()]).optional(),
});

export class ToolCallParser {
  readonly #names: ReadonlySet<string>;
  /** Not yet certain. */
  #held = "";
  #inside: { close: string | undefined } | undefined;
  #isStart = true;
  /** White space after a call belongs to neither side. */
  #isAfterCall = false;

  /** `names`: of the tools that the model was told of. */
  constructor(names: readonly string[]) {
    this.#names = new Set(names);
  }

  push(text: string): ToolText {
    this.#held += text;
    const result: ToolText = { text: "", calls: [] };
    while (this.#step(result));
    return result;
  }

  /** What is left when the answer ends. */
  flush(): ToolText {
    const rest = this.#held;
    const inside = this.#inside;
    this.#held = "";
    this.#inside = undefined;
    if (rest === "") return { text: "", calls: [] };
    const body = inside === undefined ? rest : rest.slice(openingOf(rest).length);
    const calls = this.#callsOf(body, inside?.close === undefined ? "many" : "one");
    return calls === undefined ? { text: rest, calls: [] } : { text: "", calls };
  }

  /** Takes one thing from what is held; false when more text is needed. */
  #step(result: ToolText): boolean {
    if (this.#isAfterCall) this.#held = this.#held.trimStart();
    if (this.#held === "") return false;
    this.#isAfterCall = false;
    if (this.#inside !== undefined) return this.#stepInside(result, this.#inside.close);
    if (this.#isStart) {
      // The whole answer may be a call: nobody can say before its end.
      if (/^\s*(\{|$)/.test(this.#held)) return false;
      this.#isStart = false;
    }
    const found = marks
      .map((mark) => ({ mark, at: this.#held.indexOf(mark) }))
      .filter(({ at }) => at >= 0)
      .sort((a, b) => a.at - b.at)
      .at(0);
    if (found === undefined) {
      const certain = this.#held.length - numPossible(this.#held);
      result.text += this.#held.slice(0, certain);
      this.#held = this.#held.slice(certain);
      return false;
    }
    result.text += this.#held.slice(0, found.at);
    this.#held = this.#held.slice(found.at);
    this.#inside = { close: pairs.find(({ open }) => open === found.mark)?.close };
    return true;
  }

  #stepInside(result: ToolText, close: string | undefined): boolean {
    const end = close === undefined ? -1 : this.#held.indexOf(close);
    if (close === undefined || end < 0) return false;
    const whole = this.#held.slice(0, end + close.length);
    const calls = this.#callsOf(this.#held.slice(openingOf(whole).length, end), "one");
    this.#held = this.#held.slice(whole.length);
    this.#inside = undefined;
    if (calls === undefined) result.text += whole;
    else {
      result.calls.push(...calls);
      this.#isAfterCall = true;
    }
    return true;
  }

  #callsOf(body: string, count: "one" | "many"): ParsedCall[] | undefined {
    const trimmed = body.trim();
    const parsed = jsonOf(trimmed);
    if (parsed !== undefined) return this.#callsFrom(Array.isArray(parsed) ? parsed : [parsed]);
    if (count === "one") return undefined;
    const named = namedCalls(trimmed);
    if (named !== undefined) return named.every(({ name }) => this.#names.has(name)) ? named : undefined;
    const several = splitObjects(trimmed)?.map(jsonOf);
    return several === undefined ? undefined : this.#callsFrom(several);
  }

  #callsFrom(values: readonly unknown[]): ParsedCall[] | undefined {
    const calls = values.map((value) => {
      const { success, data } = callSchema.safeParse(value);
      if (!success || !this.#names.has(data.name)) return undefined;
      const given = data.arguments ?? data.parameters ?? {};
      return { name: data.name, arguments: typeof given === "string" ? given : JSON.stringify(given) };
    });
    return calls.length > 0 && calls.every((call) => call !== undefined) ? calls : undefined;
  }
}

function openingOf(text: string): string {
  return marks.find((mark) => text.startsWith(mark)) ?? "";
}

/** Length of the longest end of `text` that may yet become a mark. */
function numPossible(text: string): number {
  const longest = Math.max(...marks.map((mark) => mark.length)) - 1;
  for (let length = Math.min(longest, text.length); length > 0; length--) {
    const end = text.slice(-length);
    if (marks.some((mark) => mark.startsWith(end))) return length;
  }
  return 0;
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** name{…}, name[ARGS]{…}, one or several, each after a [TOOL_CALLS] of its own: Mistral's newer format. */
function namedCalls(text: string): ParsedCall[] | undefined {
  const calls = text.split("[TOOL_CALLS]").map((part) => {
    const match = /^\s*([\w.-]+)(?:\[CALL_ID\][\w-]+)?(?:\[ARGS\])?\s*(\{.*\})\s*$/s.exec(part);
    return match !== null && jsonOf(match[2]) !== undefined
      ? { name: match[1], arguments: match[2] }
      : undefined;
  });
  return calls.every((call) => call !== undefined) ? calls : undefined;
}

/** JSON objects with ";" or white space between them. */
function splitObjects(text: string): string[] | undefined {
  if (!text.startsWith("{")) return undefined;
  const objects: string[] = [];
  let depth = 0;
  let start = 0;
  let isText = false;
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (isText) {
      if (character === "\\") i++;
      else if (character === '"') isText = false;
      continue;
    }
    if (character === '"') isText = true;
    else if (character === "{" && depth++ === 0) start = i;
    else if (character === "}" && --depth === 0) objects.push(text.slice(start, i + 1));
    else if (depth === 0 && !/[;\s]/.test(character)) return undefined;
  }
  return depth === 0 && !isText ? objects : undefined;
}
