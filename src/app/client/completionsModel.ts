/**
 * A model behind an OpenAI-compatible `/v1/completions`, asked as the reference harness's `local-completions` asks: token ids where a
 * tokenizer is known, `echo` with `logprobs: 1` and one generated token that is thrown away. Its last `maxSequenceTokens - 1` tokens
 * are kept of a longer request, since one must be generated.
 */
import { z } from "zod";
import { ConfigError } from "../../base/index.ts";
import { encodePair, prefixTokenOf } from "../../text/index.ts";
import type {
  GenerateRequest,
  GenerationEvent,
  LanguageModel,
  Loglikelihood,
  LoglikelihoodRequest,
  Prompt,
  RequestOptions,
  RollingLoglikelihood,
  Tokenizer,
} from "../../text/index.ts";
import { inOrder } from "./concurrently.ts";
import { postJson, ServerError } from "./http.ts";

const choiceSchema = z.object({
  index: z.number().int().default(0),
  text: z.string().default(""),
  finish_reason: z.string().nullish(),
  logprobs: z
    .object({
      tokens: z.array(z.string()).nullish(),
      token_logprobs: z.array(z.number().nullable()).nullish(),
      top_logprobs: z.array(z.record(z.string(), z.number()).nullable()).nullish(),
      text_offset: z.array(z.number()).nullish(),
    })
    .nullish(),
});
const responseSchema = z.object({ choices: z.array(choiceSchema).min(1) });

export interface CompletionsOptions {
  url: string;
  name: string;
  tokenizer: Tokenizer | undefined;
  maxSequenceTokens: number;
  apiKey?: string | undefined;
  numConcurrent?: number;
}

interface EchoedLogprobs {
  logprobs: (number | null)[];
  top: (Record<string, number> | null)[];
  offsets: number[] | undefined;
}

export class CompletionsModel implements LanguageModel {
  readonly name: string;
  readonly tokenizer: Tokenizer | undefined;
  readonly maxSequenceTokens: number;
  readonly #options: CompletionsOptions;

  constructor(options: CompletionsOptions) {
    this.name = options.name;
    this.tokenizer = options.tokenizer;
    this.maxSequenceTokens = options.maxSequenceTokens;
    this.#options = options;
  }

  /** Why the server's prompt log-probabilities cannot be used; undefined when they can. Throws ServerError. */
  async probePromptLogprobs(): Promise<string | undefined> {
    const text = "One two three four";
    const prompt = this.tokenizer === undefined ? text : Array.from(this.tokenizer.encode(text));
    try {
      const { logprobs, offsets } = await this.#echo(prompt, {});
      const numKnown = logprobs.filter((value) => value !== null).length;
      if (Array.isArray(prompt)) {
        return logprobs.length === prompt.length + 1
          ? undefined
          : `for ${prompt.length} prompt tokens and 1 more it gave ${logprobs.length} log-probabilities`;
      }
      // Some servers give those of generated tokens alone.
      if (numKnown < 3) return `it gave ${numKnown} log-probabilities for four words`;
      return offsets === undefined
        ? "it gives no text_offset, and without --tokenizer there is no other way to tell the prompt's tokens"
        : undefined;
    } catch (error) {
      if (error instanceof ConfigError) return error.message;
      throw error;
    }
  }

  async loglikelihood(
    requests: readonly LoglikelihoodRequest[],
    options: RequestOptions = {},
  ): Promise<Loglikelihood[]> {
    return await inOrder(requests, { ...this.#pace(options) }, async ({ context, continuation }) => {
      const { tokenizer } = this;
      if (tokenizer === undefined) return await this.#scoreText(context, continuation, options);
      const pair = encodePair(tokenizer, context, continuation);
      return await this.#scoreIds(pair, options);
    });
  }

  async #scoreIds(
    { context, continuation }: { context: Int32Array; continuation: Int32Array },
    options: RequestOptions,
  ): Promise<Loglikelihood> {
    const prompt = [...context, ...continuation].slice(-(this.maxSequenceTokens - 1));
    const { logprobs, top } = await this.#echo(prompt, options);
    return summed(logprobs, top, { begin: prompt.length - continuation.length, end: prompt.length });
  }

  async #scoreText(context: Prompt, continuation: Prompt, options: RequestOptions): Promise<Loglikelihood> {
    if (typeof context !== "string" || typeof continuation !== "string" || context === "") {
      throw new ConfigError(
        "eval",
        "expected texts for a server without a known tokenizer, got ids or no context",
        {
          hint: "give --tokenizer with the folder of the model's tokenizer",
        },
      );
    }
    const { logprobs, top, offsets = [] } = await this.#echo(context + continuation, options);
    const begin = offsets.findIndex((offset) => offset >= context.trimEnd().length);
    return summed(logprobs, top, { begin: Math.max(1, begin), end: logprobs.length - 1 });
  }

  async #echo(prompt: string | number[], { signal }: RequestOptions): Promise<EchoedLogprobs> {
    const body = await this.#post(
      {
        model: this.name,
        prompt: Array.isArray(prompt) ? [prompt] : prompt,
        temperature: 0,
        max_tokens: 1,
        logprobs: 1,
        seed: 1234,
        echo: true,
      },
      signal,
    );
    const parsed = responseSchema.safeParse(body);
    const logprobs = parsed.success ? parsed.data.choices[0].logprobs : undefined;
    if (logprobs?.token_logprobs == null || logprobs.top_logprobs == null)
      throw new ConfigError("eval", "expected logprobs.token_logprobs and top_logprobs with echo, got none");
    return {
      logprobs: logprobs.token_logprobs,
      top: logprobs.top_logprobs,
      offsets: logprobs.text_offset ?? undefined,
    };
  }

  async loglikelihoodRolling(
    texts: readonly Prompt[],
    options: RequestOptions = {},
  ): Promise<RollingLoglikelihood[]> {
    const { tokenizer } = this;
    if (tokenizer === undefined) {
      throw new ConfigError("eval", "expected the server model's tokenizer for whole texts, got none", {
        hint: "give --tokenizer",
      });
    }
    const room = this.maxSequenceTokens - 2;
    return await inOrder(texts, this.#pace(options), async (text) => {
      const ids = typeof text === "string" ? tokenizer.encode(text) : text;
      const total = { logprob: 0, numTokens: 0 };
      for (let begin = 0; begin < ids.length; begin += room) {
        const end = Math.min(ids.length, begin + room);
        const context =
          begin === 0
            ? Int32Array.of(prefixTokenOf(tokenizer))
            : ids.slice(Math.max(0, end - room - 1), begin);
        const { logprob, numTokens } = await this.#scoreIds(
          { context, continuation: ids.slice(begin, end) },
          options,
        );
        total.logprob += logprob;
        total.numTokens += numTokens;
      }
      return total;
    });
  }

  async *generate(
    requests: readonly GenerateRequest[],
    options: RequestOptions = {},
  ): AsyncGenerator<GenerationEvent> {
    const texts = await inOrder(
      requests,
      this.#pace(options),
      async (request) => await this.#complete(request, options),
    );
    for (const [index, text] of texts.entries())
      yield { type: "end", index, reason: "stop", text, numPromptTokens: 0, numNewTokens: 0 };
  }

  async #complete(request: GenerateRequest, { signal }: RequestOptions): Promise<string> {
    const { prompt, maxNewTokens, sampling = {}, stop = [] } = request;
    const ids = typeof prompt === "string" ? this.tokenizer?.encode(prompt) : prompt;
    const room = Math.max(1, this.maxSequenceTokens - 1 - maxNewTokens);
    const body = await this.#post(
      {
        model: this.name,
        prompt: ids === undefined ? prompt : [Array.from(ids.slice(-room))],
        max_tokens: maxNewTokens,
        temperature: sampling.temperature ?? 0,
        ...(sampling.topP === undefined ? {} : { top_p: sampling.topP }),
        ...(sampling.seed === undefined ? {} : { seed: sampling.seed }),
        stop,
      },
      signal,
    );
    const parsed = responseSchema.safeParse(body);
    if (!parsed.success)
      throw new ConfigError("eval", "expected choices from the server, got another answer");
    const { text } = parsed.data.choices[0];
    // OpenAI's servers take four stop strings: cut here too what one ignored.
    const cuts = stop.map((end) => text.indexOf(end)).filter((at) => at >= 0);
    return cuts.length === 0 ? text : text.slice(0, Math.min(...cuts));
  }

  async #post(body: unknown, signal: AbortSignal | undefined): Promise<unknown> {
    try {
      const { url, apiKey } = this.#options;
      return await postJson(`${url}/completions`, body, { signal, apiKey });
    } catch (error) {
      if (this.tokenizer !== undefined || !isContextRefusal(error)) throw error;
      throw new ServerError(withoutComponent(error), error.status, {
        hint: "give --tokenizer with the folder of the model's tokenizer: only with it are long prompts cut to the server's context",
        cause: error,
      });
    }
  }

  #pace({ onProgress, signal }: RequestOptions) {
    return { numConcurrent: this.#options.numConcurrent ?? 8, onProgress, signal };
  }
}

/** As OpenAI's API, vLLM and Nautilus say that prompt and answer are too long. */
function isContextRefusal(error: unknown): error is ServerError {
  return (
    error instanceof ServerError &&
    (error.status === 400 || error.status === 413) &&
    /context_length|context length|too long|at most \d+ tokens/i.test(error.message)
  );
}

function withoutComponent({ message }: ServerError): string {
  return message.replace(/^\[client\] /, "");
}

/** Of the continuation's places: the sum, and whether each token is the top one, judged by equal numbers. */
function summed(
  logprobs: readonly (number | null)[],
  top: readonly (Record<string, number> | null)[],
  { begin, end }: { begin: number; end: number },
): Loglikelihood {
  let logprob = 0;
  let isGreedy = true;
  for (let at = begin; at < end; at++) {
    const value = logprobs[at] ?? Number.NaN;
    logprob += value;
    isGreedy &&= value === Math.max(...Object.values(top[at] ?? {}));
  }
  return { logprob, isGreedy, numTokens: end - begin };
}
