/**
 * One completion out of its sequence's events, piece by piece. The whole answer is all pieces joined, so that streamed and unstreamed
 * text are the same by construction.
 */
import type { CompletionLogprobs } from "../../api/openai/index.ts";
import type { EngineEvent, TokenLogprobs } from "../../../infer/index.ts";
import type { StreamDecoder, Tokenizer } from "../../../text/index.ts";
import { TokenTexts } from "./tokenTexts.ts";

export interface CompletionPiece {
  text: string;
  logprobs: CompletionLogprobs | null;
  finishReason: "stop" | "length" | null;
}

export interface CompletionWriterOptions {
  tokenizer: Tokenizer;
  /** The prompt as it is to be repeated before the answer; undefined: it is not. */
  echo: { ids: readonly number[]; text: string } | undefined;
  /** How many likely tokens to name with each; undefined: no log-probabilities at all. */
  numLogprobs: number | undefined;
}

export class CompletionWriter {
  readonly #options: CompletionWriterOptions;
  readonly #texts: TokenTexts;
  /** Says where in the text each token begins. */
  readonly #offsets: StreamDecoder;
  #offset = 0;
  #isBegun = false;
  #sumLogprobs = 0;
  #numTokens = 0;

  constructor(options: CompletionWriterOptions) {
    this.#options = options;
    this.#texts = new TokenTexts(options.tokenizer);
    this.#offsets = options.tokenizer.createDecoder({ startsText: options.echo !== undefined });
  }

  /** Mean log-probability of the answer's tokens: what best_of ranks by. */
  get meanLogprob(): number {
    return this.#sumLogprobs / Math.max(1, this.#numTokens);
  }

  push(event: EngineEvent): CompletionPiece {
    const piece = this.#begin(event);
    if (event.type === "token") {
      this.#sumLogprobs += event.logprob;
      this.#numTokens++;
      piece.text += event.text;
      this.#append(piece, event);
    } else if (event.type === "end") {
      piece.text += event.text;
      piece.finishReason = event.reason === "length" ? "length" : "stop";
    }
    return piece;
  }

  /** An empty piece, or the prompt where it is to be repeated and was not yet. */
  #begin(event: EngineEvent): CompletionPiece {
    const { echo, numLogprobs } = this.#options;
    const piece: CompletionPiece = {
      text: "",
      logprobs: numLogprobs === undefined ? null : emptyLogprobs(numLogprobs),
      finishReason: null,
    };
    if (this.#isBegun) return piece;
    this.#isBegun = true;
    if (echo === undefined) return piece;
    piece.text = echo.text;
    const given = event.type === "prompt" ? event.logprobs : [];
    for (const [i, token] of echo.ids.entries())
      this.#append(
        piece,
        i === 0 ? { token, logprob: undefined } : (given[i - 1] ?? { token, logprob: undefined }),
      );
    return piece;
  }

  #append(
    { logprobs }: CompletionPiece,
    { token, logprob, mostLikely }: Omit<TokenLogprobs, "logprob"> & { logprob: number | undefined },
  ): void {
    if (logprobs === null) return;
    logprobs.tokens.push(this.#texts.of(token).text);
    logprobs.token_logprobs.push(logprob ?? null);
    logprobs.text_offset.push(this.#offset);
    logprobs.top_logprobs?.push(logprob === undefined ? null : this.#likely({ token, logprob, mostLikely }));
    for (const _ of this.#offsets.push(token)) this.#offset++;
  }

  /** The likeliest tokens by their text, and the one that stands there. Of two with the same text the likelier counts. */
  #likely({ token, logprob, mostLikely = [] }: Pick<TokenLogprobs, "token" | "logprob" | "mostLikely">) {
    const likely: Record<string, number> = {};
    for (const other of [...mostLikely, { token, logprob }]) {
      const { text } = this.#texts.of(other.token);
      if (!Object.hasOwn(likely, text)) likely[text] = other.logprob;
    }
    return likely;
  }
}

function emptyLogprobs(numLogprobs: number): CompletionLogprobs {
  return {
    text_offset: [],
    token_logprobs: [],
    tokens: [],
    top_logprobs: numLogprobs === 0 ? null : [],
  };
}

/** Pieces of one completion as one. */
export function joinPieces(pieces: readonly CompletionPiece[]): CompletionPiece {
  const all = pieces.flatMap(({ logprobs }) => (logprobs === null ? [] : [logprobs]));
  const hasTop = all.some(({ top_logprobs: top }) => top !== null);
  return {
    text: pieces.map(({ text }) => text).join(""),
    logprobs:
      all.length === 0
        ? null
        : {
            text_offset: all.flatMap((one) => one.text_offset),
            token_logprobs: all.flatMap((one) => one.token_logprobs),
            tokens: all.flatMap((one) => one.tokens),
            top_logprobs: hasTop ? all.flatMap((one) => one.top_logprobs ?? []) : null,
          },
    finishReason: pieces.findLast(({ finishReason }) => finishReason !== null)?.finishReason ?? null,
  };
}
