/** Continues prompts given as text: what the command line and the in-process API are made of. */
import type { Tokenizer } from "../text/index.ts";
import type { Engine, OutputConstraint } from "./engine/contract.ts";
import { generateTogether } from "./engine/together.ts";
import type { IndexedEvent } from "./engine/together.ts";
import type { SamplingOptions } from "./sampling.ts";

export interface TextRequest {
  /** Text, or tokens that are fed as they are. */
  prompt: string | readonly number[];
  sampling: SamplingOptions;
  constraint?: OutputConstraint | undefined;
  /** Tokens that end the text, besides the model's own. */
  endTokens?: readonly number[] | undefined;
}

/** The ids of a prompt. An empty one begins a new document, as the data does after an end of document. */
export function promptTokens(tokenizer: Tokenizer, prompt: string): number[] {
  const tokens = Array.from(tokenizer.encode(prompt));
  return tokens.length === 0 ? [tokenizer.bosId ?? tokenizer.eosId] : tokens;
}

/** Events of all prompts as they come. Throws RequestError, EngineFailedError. */
export function generateText(
  engine: Engine,
  tokenizer: Tokenizer,
  requests: readonly TextRequest[],
): AsyncGenerator<IndexedEvent> {
  const asTokens = requests.map(({ prompt, sampling, constraint, endTokens }) => ({
    prompt: typeof prompt === "string" ? promptTokens(tokenizer, prompt) : prompt,
    sampling,
    constraint,
    ...(endTokens === undefined ? {} : { endTokens }),
  }));
  return generateTogether(engine, asTokens);
}
