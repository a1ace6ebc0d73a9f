/** Continues prompts given as text: what the command line and the in-process API are made of. */
import type { Tokenizer } from "../text/index.ts";
import type { Engine, OutputConstraint } from "./engine/contract.ts";
import { generateTogether } from "./engine/together.ts";
import type { IndexedEvent } from "./engine/together.ts";
import type { SamplingOptions } from "./sampling.ts";

export interface TextRequest {
  prompt: string;
  sampling: SamplingOptions;
  constraint?: OutputConstraint | undefined;
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
  const asTokens = requests.map(({ prompt, sampling, constraint }) => ({
    prompt: promptTokens(tokenizer, prompt),
    sampling,
    constraint,
  }));
  return generateTogether(engine, asTokens);
}
