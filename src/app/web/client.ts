/** What the page asks its own server. */
import type { ChatChunk, CompletionChunk } from "../api/openai/index.ts";
import type { ServerInfo, ServerStatistics } from "../api/serverInfo.ts";

export interface Alternative {
  token: string;
  probability: number;
}

/** A piece of the answer: text that became certain together, and the tokens that it came from. */
export interface Piece {
  text: string;
  tokens: { token: string; probability: number; alternatives: Alternative[] }[];
}

export interface Sampling {
  maxTokens: number;
  temperature: number;
  topP: number;
  topK: number;
  repetitionPenalty: number;
  seed: string;
  stop: string;
}

export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

export class ServerFailure extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

const numAlternatives = 5;

export class Client {
  /** Kept for this tab alone. */
  key = sessionStorage.getItem("nautilus-key") ?? "";

  info(): Promise<ServerInfo> {
    return this.#get<ServerInfo>("/info");
  }

  statistics(): Promise<ServerStatistics> {
    return this.#get<ServerStatistics>("/statistics");
  }

  async *complete(
    model: string,
    prompt: string,
    sampling: Sampling,
    signal: AbortSignal,
  ): AsyncGenerator<Piece> {
    const body = { model, prompt, logprobs: numAlternatives, ...fieldsOf(sampling) };
    for await (const { choices } of this.#stream<CompletionChunk>("/v1/completions", body, signal)) {
      for (const { text, logprobs } of choices) {
        const tokens = (logprobs?.tokens ?? []).map((token, i) => ({
          token,
          probability: Math.exp(logprobs?.token_logprobs[i] ?? -Infinity),
          alternatives: Object.entries(logprobs?.top_logprobs?.[i] ?? {}).map(([token, logprob]) => ({
            token,
            probability: Math.exp(logprob),
          })),
        }));
        yield { text, tokens };
      }
    }
  }

  async *chat(
    model: string,
    messages: readonly Message[],
    sampling: Sampling,
    signal: AbortSignal,
  ): AsyncGenerator<Piece> {
    const body = { model, messages, logprobs: true, top_logprobs: numAlternatives, ...fieldsOf(sampling) };
    for await (const { choices } of this.#stream<ChatChunk>("/v1/chat/completions", body, signal)) {
      for (const { delta, logprobs } of choices) {
        const tokens = (logprobs?.content ?? []).map(({ token, logprob, top_logprobs: top }) => ({
          token,
          probability: Math.exp(logprob),
          alternatives: top.map((other) => ({ token: other.token, probability: Math.exp(other.logprob) })),
        }));
        yield { text: delta.content ?? "", tokens };
      }
    }
  }

  #headers(): Record<string, string> {
    return this.key === "" ? {} : { authorization: `Bearer ${this.key}` };
  }

  async #get<Answer>(path: string): Promise<Answer> {
    const answer = await fetch(path, { headers: this.#headers() });
    if (!answer.ok) throw await failureOf(answer);
    // The server of this page made it from the same schema.
    return (await answer.json()) as Answer;
  }

  async *#stream<Chunk extends ChatChunk | CompletionChunk>(
    path: string,
    body: object,
    signal: AbortSignal,
  ): AsyncGenerator<Chunk, void, undefined> {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json", ...this.#headers() },
      body: JSON.stringify({ ...body, stream: true }),
      signal,
    });
    if (!answer.ok || answer.body === null) throw await failureOf(answer);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let held = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const events = (held + value).split("\n\n");
      held = events.pop() ?? "";
      for (const event of events) {
        const data = event.replace(/^data: /, "");
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data) as Chunk | { error: { message: string } };
        if ("error" in chunk) throw new ServerFailure(200, chunk.error.message);
        yield chunk;
      }
    }
  }
}

function fieldsOf({ maxTokens, temperature, topP, topK, repetitionPenalty, seed, stop }: Sampling) {
  return {
    max_tokens: maxTokens,
    temperature,
    top_p: topP,
    top_k: topK,
    repetition_penalty: repetitionPenalty,
    ...(seed.trim() === "" ? {} : { seed: Number(seed) }),
    ...(stop === "" ? {} : { stop: [stop.replaceAll("\\n", "\n")] }),
  };
}

async function failureOf(answer: Response): Promise<ServerFailure> {
  const text = await answer.text();
  try {
    const { error } = JSON.parse(text) as { error?: { message?: string } };
    return new ServerFailure(answer.status, error?.message ?? text);
  } catch {
    return new ServerFailure(answer.status, text || answer.statusText);
  }
}
