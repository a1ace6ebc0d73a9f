/**
 * Models behind servers as `LanguageModel`: finds out what stands at an address, an OpenAI-compatible server or a KServe one, and
 * whether it gives log-probabilities of prompts.
 */
import { z } from "zod";
import { ConfigError, messageOf } from "../../base/index.ts";
import type { LanguageModel, Tokenizer } from "../../text/index.ts";
import { CompletionsModel } from "./completionsModel.ts";
import { KServeModel } from "./kserveModel.ts";

export interface ServedModelOptions {
  /** An OpenAI-compatible server, with /v1 or without, or ".../v2/models/NAME" of a KServe one; "http://" may be left out. */
  url: string;
  /** Which model; undefined: the first that the server names. */
  name: string | undefined;
  tokenizer: Tokenizer | undefined;
  /** Longest prompt and answer; undefined: what the server says, else 4096. */
  maxSequenceTokens: number | undefined;
  apiKey?: string | undefined;
}

export interface OpenedServedModel {
  model: LanguageModel;
  hasPromptLogprobs: boolean;
  /** Why not, in words. */
  reason: string;
}

/** Throws ConfigError when nothing answers there. */
export async function openServedModel(options: ServedModelOptions): Promise<OpenedServedModel> {
  const url = serverAddress(options.url);
  if (url === undefined)
    throw new ConfigError("eval", `expected an address like http://127.0.0.1:8000/v1, got '${options.url}'`);
  if (/\/v2\/models\/[^/]+$/.test(url)) {
    const model = new KServeModel({
      ...options,
      url,
      maxSequenceTokens: options.maxSequenceTokens ?? usualLength,
    });
    return { model, hasPromptLogprobs: false, reason: "KServe's generate route has no field for them" };
  }
  const { name, maxLength } = await findServed(url, options);
  const maxSequenceTokens = options.maxSequenceTokens ?? maxLength ?? usualLength;
  const model = new CompletionsModel({ ...options, url, name, maxSequenceTokens });
  const reason = await model.probePromptLogprobs();
  return { model, hasPromptLogprobs: reason === undefined, reason: reason ?? "" };
}

const usualLength = 4096;

/** "localhost:8000" as "http://localhost:8000/v1"; undefined for what is no address. */
export function serverAddress(given: string): string | undefined {
  const withScheme = /^https?:\/\//.test(given) ? given : `http://${given}`;
  if (!URL.canParse(withScheme)) return undefined;
  const url = withScheme.replace(/\/+$/, "").replace(/\/completions$/, "");
  return new URL(url).pathname === "/" ? `${url}/v1` : url;
}

const modelList = z.object({
  data: z.array(z.object({ id: z.string(), max_model_len: z.number().int().positive().nullish() })),
});

/** The model asked for, or the first that the server names, and its context where the server says it, as vLLM's and ours do. */
async function findServed(
  url: string,
  { name, apiKey }: ServedModelOptions,
): Promise<{ name: string; maxLength: number | undefined }> {
  let body: unknown;
  try {
    const response = await fetch(`${url}/models`, {
      headers: apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` },
      signal: AbortSignal.timeout(30_000),
    });
    body = await response.json();
  } catch (error) {
    // Servers without the list still answer by name; one that is not there is found out by the first request.
    if (name !== undefined) return { name, maxLength: undefined };
    throw new ConfigError("eval", `expected a server at ${url}, got ${messageOf(error)}`, {
      hint: "is it running? the address of an OpenAI-compatible one ends in /v1",
      cause: error,
    });
  }
  const { data: models = [] } = modelList.safeParse(body).data ?? {};
  const found = name === undefined ? models.at(0) : models.find(({ id }) => id === name);
  const id = found?.id ?? name;
  if (id !== undefined) return { name: id, maxLength: found?.max_model_len ?? undefined };
  throw new ConfigError("eval", `expected a list of models at ${url}/models, got none`, {
    hint: "give --model-name",
  });
}
