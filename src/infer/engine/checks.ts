/** Whether a request can be at all: said before anything is computed for it. */
import { RequestError } from "../../base/index.ts";
import type { EngineModelInfo, EngineRequest } from "./contract.ts";

/** Most likely tokens that can be asked for (tokenLogprobs of the operator table). */
export const maxLogprobs = 128;

/** `numUnread`: tokens at the prompt's end that need no room in the context, -1 where one more is needed. Throws RequestError. */
export function checkPrompt(prompt: readonly number[], info: EngineModelInfo, numUnread: number): void {
  if (prompt.length === 0)
    throw new RequestError("engine", "expected a prompt of at least one token, got none");
  const { maxContext, vocabSize } = info;
  if (prompt.length > maxContext + numUnread) {
    const limit = numUnread < 0 ? "shorter than" : "within";
    throw new RequestError(
      "engine",
      `expected a prompt ${limit} the context of ${maxContext} tokens, got ${prompt.length}`,
      { hint: "shorten the prompt", fields: { maxContext, numPromptTokens: prompt.length } },
    );
  }
  for (const token of prompt) checkToken("prompt", token, vocabSize);
}

/** How many tokens at the end of a request's prompt are only predicted: the last one, where nothing follows it. */
function unreadTokens({ sampling, promptLogprobs }: EngineRequest): number {
  if (sampling.maxTokens > 0) return -1;
  return promptLogprobs === undefined ? 0 : 1;
}

function checkToken(what: string, token: number, vocabSize: number): void {
  if (Number.isInteger(token) && token >= 0 && token < vocabSize) return;
  throw new RequestError("engine", `expected ${what} tokens from 0 to ${vocabSize - 1}, got ${token}`);
}

function checkAlternatives(
  { prompt, promptLogprobs, promptLogprobsFrom: from = 1, promptAlternatives = [] }: EngineRequest,
  info: EngineModelInfo,
): void {
  let last = from;
  for (const { at, token } of promptAlternatives) {
    if (promptLogprobs === undefined || !Number.isInteger(at) || at < last || at >= prompt.length) {
      const scored = promptLogprobs === undefined ? "none" : `those from ${last} to ${prompt.length - 1}`;
      throw new RequestError(
        "engine",
        `expected alternatives to scored prompt tokens, in their order (${scored}), got one at ${at}`,
        { hint: "promptLogprobs and promptLogprobsFrom say which tokens are scored" },
      );
    }
    last = at;
    checkToken("alternative", token, info.vocabSize);
  }
}

/** Throws RequestError. */
export function checkRequest(request: EngineRequest, info: EngineModelInfo): void {
  const { prompt, sampling, numLogprobs, promptLogprobs, promptLogprobsFrom } = request;
  checkPrompt(prompt, info, unreadTokens(request));
  for (const [what, count] of Object.entries({ answer: numLogprobs, prompt: promptLogprobs })) {
    if (count === undefined || (Number.isInteger(count) && count >= 0 && count <= maxLogprobs)) continue;
    throw new RequestError(
      "engine",
      `expected 0 to ${maxLogprobs} likely tokens beside each token of the ${what}, got ${count}`,
      { hint: "distributions over the whole vocabulary are not given; ask for the likeliest tokens" },
    );
  }
  const from = promptLogprobsFrom ?? 1;
  if (!Number.isInteger(from) || from < 1) {
    throw new RequestError("engine", `expected promptLogprobsFrom of at least 1, got ${from}`, {
      hint: "the first token has nothing before it",
    });
  }
  checkAlternatives(request, info);
  for (const [token] of sampling.logitBias) checkToken("logit bias", token, info.vocabSize);
  for (const token of request.endTokens ?? []) checkToken("end", token, info.vocabSize);
}
