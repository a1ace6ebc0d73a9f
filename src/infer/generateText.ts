/** Generates text for a batch of prompts: tokens in and out of the runner, with streaming and stop strings. */
import type { Tokenizer } from "../text/index.ts";
import { generateTokens } from "./generate.ts";
import type { FinishReason } from "./generate.ts";
import type { ModelRunner } from "./runner.ts";
import type { SamplingOptions } from "./sampling.ts";
import { TextStream } from "./textStream.ts";

export interface TextRequest {
  prompt: string;
  sampling: SamplingOptions;
}

export interface TextEvent {
  /** Index of the request. */
  request: number;
  /** Text that became certain; may be empty. */
  text: string;
  token: number;
  logprob: number;
  /** Set on the last event of a request. */
  finishReason: FinishReason | "stop" | undefined;
}

/** Text of all requests as it becomes certain. Throws NautilusError. */
export async function* generateText(
  runner: ModelRunner,
  tokenizer: Tokenizer,
  { requests, endTokens }: { requests: readonly TextRequest[]; endTokens: readonly number[] },
): AsyncGenerator<TextEvent> {
  // What is generated goes on from a prompt: a space at its beginning counts.
  const streams = requests.map(
    ({ prompt, sampling }) =>
      new TextStream(tokenizer.createDecoder({ startsText: prompt === "" }), sampling.stop),
  );
  const tokenRequests = requests.map(({ prompt, sampling }) => ({
    prompt: promptTokens(tokenizer, prompt),
    sampling,
    endTokens,
  }));
  const isStopped = (request: number): boolean => streams[request].isStopped;
  for await (const event of generateTokens(runner, tokenRequests, isStopped)) {
    const stream = streams[event.request];
    const pushed = event.finishReason === "end" ? "" : stream.push(event.token);
    const isLast = event.finishReason !== undefined;
    const text = isLast ? pushed + stream.flush() : pushed;
    yield { ...event, text, finishReason: stream.isStopped ? "stop" : event.finishReason };
  }
}

/** An empty prompt begins a new document, as the data does after an end of document. */
function promptTokens(tokenizer: Tokenizer, prompt: string): number[] {
  const tokens = Array.from(tokenizer.encode(prompt));
  return tokens.length === 0 ? [tokenizer.eosId] : tokens;
}
