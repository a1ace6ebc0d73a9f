/** One answer of a chat out of its sequence's events, piece by piece: text, calls of tools, log-probabilities. */
import type { ChatFinishReason, ChatTokenLogprob, ToolCall } from "../../api/openai/index.ts";
import type { EngineEvent, TokenLogprobs } from "../../../infer/index.ts";
import type { Tokenizer } from "../../../text/index.ts";
import { TokenTexts } from "./tokenTexts.ts";
import { ToolCallParser, toolMarks } from "./toolCalls.ts";
import type { ToolText } from "./toolCalls.ts";

export interface ChatPiece {
  text: string;
  calls: ToolCall[];
  logprobs: ChatTokenLogprob[];
  finishReason: ChatFinishReason | null;
}

export interface ChatWriterOptions {
  tokenizer: Tokenizer;
  /** Names calls: they are unique in this request. */
  id: string;
  withLogprobs: boolean;
  dropsLastNewline: boolean;
  /** "text": none are looked for; "parse": out of the text; otherwise the answer is the arguments of this one tool, or a call as JSON. */
  tools:
    | { kind: "none" }
    | { kind: "parse"; names: readonly string[] }
    | { kind: "forced"; name: string | undefined };
}

export class ChatWriter {
  readonly #options: ChatWriterOptions;
  readonly #texts: TokenTexts;
  readonly #parser: ToolCallParser | undefined;
  /** Special tokens that stand for marks of calls: decoding leaves them out. */
  readonly #marks: ReadonlyMap<number, string>;
  /** The answer so far, where it is a call as a whole. */
  #forced = "";
  /** A newline at the end, of which nobody knows yet whether it is the last. */
  #heldNewline = "";
  #numCalls = 0;

  constructor(options: ChatWriterOptions) {
    this.#options = options;
    this.#texts = new TokenTexts(options.tokenizer);
    const { tools, tokenizer } = options;
    this.#parser = tools.kind === "parse" ? new ToolCallParser(tools.names) : undefined;
    this.#marks = new Map(
      this.#parser === undefined
        ? []
        : toolMarks.flatMap((mark) => {
            const id = tokenizer.specialTokens.get(mark);
            return id === undefined ? [] : [[id, mark] as const];
          }),
    );
  }

  push(event: EngineEvent): ChatPiece {
    const piece: ChatPiece = { text: "", calls: [], logprobs: [], finishReason: null };
    if (event.type === "prompt") return piece;
    const mark = event.type === "token" ? (this.#marks.get(event.token) ?? "") : "";
    this.#take(piece, event.text + mark);
    if (event.type === "token") {
      if (this.#options.withLogprobs) piece.logprobs.push(this.#logprobOf(event));
      return piece;
    }
    this.#end(piece);
    const hasCalls = this.#numCalls > 0;
    const isCut = event.reason === "length";
    piece.finishReason = isCut ? "length" : hasCalls ? "tool_calls" : "stop";
    return piece;
  }

  #take(piece: ChatPiece, text: string): void {
    if (this.#options.tools.kind === "forced") this.#forced += text;
    else if (this.#parser === undefined) piece.text += this.#withoutLastNewline(text);
    else this.#add(piece, this.#parser.push(text));
  }

  #end(piece: ChatPiece): void {
    if (this.#parser !== undefined) this.#add(piece, this.#parser.flush());
    const { tools } = this.#options;
    if (tools.kind !== "forced") return;
    if (tools.name !== undefined) {
      this.#add(piece, { text: "", calls: [{ name: tools.name, arguments: this.#forced.trim() }] });
      return;
    }
    const call = callOf(this.#forced);
    this.#add(piece, call === undefined ? { text: this.#forced, calls: [] } : { text: "", calls: [call] });
  }

  #add(piece: ChatPiece, { text, calls }: ToolText): void {
    piece.text += this.#withoutLastNewline(text);
    for (const { name, arguments: given } of calls) {
      const id = `call_${this.#options.id}_${this.#numCalls++}`;
      piece.calls.push({ id, type: "function", function: { name, arguments: given } });
    }
  }

  #withoutLastNewline(text: string): string {
    if (!this.#options.dropsLastNewline || text === "") return text;
    const all = this.#heldNewline + text;
    this.#heldNewline = all.endsWith("\n") ? "\n" : "";
    return this.#heldNewline === "" ? all : all.slice(0, -1);
  }

  #logprobOf({ token, logprob, mostLikely = [] }: TokenLogprobs): ChatTokenLogprob {
    const one = (id: number, logprob: number) => {
      const { text, bytes } = this.#texts.of(id);
      return { token: text, logprob, bytes };
    };
    return {
      ...one(token, logprob),
      top_logprobs: mostLikely.map((other) => one(other.token, other.logprob)),
    };
  }
}

/** The call that an answer held to `{"name", "arguments"}` is. */
function callOf(text: string): { name: string; arguments: string } | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null || !("name" in value)) return undefined;
    const given = "arguments" in value ? value.arguments : {};
    return { name: String(value.name), arguments: JSON.stringify(given) };
  } catch {
    // Cut off by max_tokens: it stays text.
    return undefined;
  }
}
