/** What completions and chats have in common on the way back: usage, and answers as a whole or as a stream. */
import type { Usage } from "../../api/openai/index.ts";
import { messageOf } from "../../../base/index.ts";
import type { EngineEvent } from "../../../infer/index.ts";
import type { HttpContext } from "../http/environment.ts";
import { eventAnswer, eventLine } from "../http/eventStream.ts";
import { openAiErrorBody } from "../http/failures.ts";
import { failureOf, Refusal } from "../refusal.ts";
import type { RequestContext } from "../requestContext.ts";
import type { RunEvent } from "../runRequest.ts";

export type EndEvent = Extract<EngineEvent, { type: "end" }>;

/** Adds up what the sequences of a request took. */
export class UsageCounter {
  readonly #sequencesPerPrompt: number;
  #numPrompt = 0;
  #numCached = 0;
  #numNew = 0;

  constructor(sequencesPerPrompt: number) {
    this.#sequencesPerPrompt = sequencesPerPrompt;
  }

  add(sequence: number, end: EndEvent): void {
    this.#numNew += end.numNewTokens;
    // A prompt counts once, however many answers it gets.
    if (sequence % this.#sequencesPerPrompt > 0) return;
    this.#numPrompt += end.numPromptTokens;
    this.#numCached += end.numCachedTokens;
  }

  get usage(): Usage {
    return {
      prompt_tokens: this.#numPrompt,
      completion_tokens: this.#numNew,
      total_tokens: this.#numPrompt + this.#numNew,
      prompt_tokens_details: { cached_tokens: this.#numCached },
    };
  }
}

export function secondsNow(): number {
  return Math.floor(Date.now() / 1000);
}

/**
 * Answers with server-sent events: those that `chunksOf` makes of a run's events, then those of `last`, then [DONE]. An error midway is
 * an event of OpenAI's error shape, and the last one.
 */
export function streamAnswer<Chunk>(
  c: HttpContext,
  events: AsyncIterableIterator<RunEvent>,
  { chunksOf, last }: { chunksOf: (event: RunEvent) => readonly Chunk[]; last: () => readonly Chunk[] },
): Response {
  const context = c.get("request");
  async function* lines(): AsyncGenerator<string, void, undefined> {
    try {
      for await (const event of events) {
        const chunks = chunksOf(event);
        if (chunks.length > 0) yield chunks.map(eventLine).join("");
      }
      yield `${last().map(eventLine).join("")}${eventLine("[DONE]")}`;
    } catch (error) {
      noteFailure(context, error);
      yield eventLine(openAiErrorBody(failureOf(error)));
    } finally {
      await events.return?.();
    }
  }
  return eventAnswer(c, lines());
}

/** The status is sent already: the log is all that can still tell of it. */
function noteFailure(context: RequestContext, error: unknown): void {
  context.facts.failure = messageOf(error);
  if (!(error instanceof Refusal)) context.log.error({ id: context.id, err: error }, "failed midway");
}
