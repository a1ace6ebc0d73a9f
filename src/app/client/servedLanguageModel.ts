/**
 * Models behind servers as `LanguageModel`: finds out what stands at an address, an OpenAI-compatible server or a KServe one, and
 * whether it gives log-probabilities of prompts.
 */
import { ConfigError, messageOf } from "../../base/index.ts";
import type { LanguageModel, Tokenizer } from "../../text/index.ts";
import { CompletionsModel } from "./completionsModel.ts";
import { KServeModel } from "./kserveModel.ts";

export interface ServedModelOptions {
  /** ".../v1" of an OpenAI-compatible server, or ".../v2/models/NAME" of a KServe one. */
  url: string;
  /** Which model; undefined: the first that the server names. */
  name: string | undefined;
  tokenizer: Tokenizer | undefined;
  maxSequenceTokens: number;
  apiKey?: string;
}

export interface OpenedServedModel {
  model: LanguageModel;
  hasPromptLogprobs: boolean;
  /** Why not, in words. */
  reason: string;
}

/** Throws ConfigError when nothing answers there. */
export async function openServedModel(options: ServedModelOptions): Promise<OpenedServedModel> {
  const url = options.url.replace(/\/+$/, "").replace(/\/completions$/, "");
  if (!URL.canParse(url))
    throw new ConfigError("eval", `expected an address like http://127.0.0.1:8000/v1, got '${options.url}'`);
  if (/\/v2\/models\/[^/]+$/.test(url)) {
    const model = new KServeModel({ ...options, url });
    return { model, hasPromptLogprobs: false, reason: "KServe's generate route has no field for them" };
  }
  const name = options.name ?? (await firstModel(url, options.apiKey));
  const model = new CompletionsModel({ ...options, url, name });
  const reason = await model.probePromptLogprobs();
  return { model, hasPromptLogprobs: reason === undefined, reason: reason ?? "" };
}

async function firstModel(url: string, apiKey: string | undefined): Promise<string> {
  try {
    const response = await fetch(`${url}/models`, {
      headers: apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` },
      signal: AbortSignal.timeout(30_000),
    });
    const body: unknown = await response.json();
    const data: unknown = typeof body === "object" && body !== null && "data" in body ? body.data : undefined;
    const first: unknown = Array.isArray(data) ? data[0] : undefined;
    if (typeof first === "object" && first !== null && "id" in first && typeof first.id === "string")
      return first.id;
  } catch (error) {
    throw new ConfigError("eval", `expected a server at ${url}, got ${messageOf(error)}`, {
      hint: "is it running? the address ends in /v1",
      cause: error,
    });
  }
  throw new ConfigError("eval", `expected a list of models at ${url}/models, got none`, {
    hint: "give --model-name",
  });
}
