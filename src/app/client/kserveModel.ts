/**
 * A model behind KServe's generate route (`POST /v2/models/NAME/generate`): text in, text out. The route knows no log-probabilities of
 * prompts, so only tasks that generate can run.
 */
import { z } from "zod";
import { ConfigError } from "../../base/index.ts";
import type {
  GenerateRequest,
  GenerationEvent,
  LanguageModel,
  Loglikelihood,
  RequestOptions,
  RollingLoglikelihood,
  Tokenizer,
} from "../../text/index.ts";
import { inOrder } from "./concurrently.ts";
import { postJson } from "./http.ts";

const responseSchema = z.object({ text_output: z.string() });

export class KServeModel implements LanguageModel {
  readonly name: string;
  readonly tokenizer: Tokenizer | undefined;
  readonly maxSequenceTokens: number;
  readonly #url: string;

  constructor({
    url,
    tokenizer,
    maxSequenceTokens,
  }: {
    url: string;
    tokenizer: Tokenizer | undefined;
    maxSequenceTokens: number;
  }) {
    this.name = url.split("/").at(-1) ?? url;
    this.tokenizer = tokenizer;
    this.maxSequenceTokens = maxSequenceTokens;
    this.#url = url;
  }

  loglikelihood(): Promise<Loglikelihood[]> {
    return Promise.reject(noLogprobs());
  }

  loglikelihoodRolling(): Promise<RollingLoglikelihood[]> {
    return Promise.reject(noLogprobs());
  }

  async *generate(
    requests: readonly GenerateRequest[],
    options: RequestOptions = {},
  ): AsyncGenerator<GenerationEvent> {
    const pace = { numConcurrent: 8, signal: options.signal, onProgress: options.onProgress };
    const texts = await inOrder(
      requests,
      pace,
      async ({ prompt, maxNewTokens, sampling = {}, stop = [] }) => {
        if (typeof prompt !== "string") throw new ConfigError("eval", "expected a text for KServe, got ids");
        const body = await postJson(
          `${this.#url}/generate`,
          {
            text_input: prompt,
            parameters: {
              max_tokens: maxNewTokens,
              temperature: sampling.temperature ?? 0,
              ...(sampling.seed === undefined ? {} : { seed: sampling.seed }),
              stop,
            },
          },
          { signal: options.signal },
        );
        const parsed = responseSchema.safeParse(body);
        if (!parsed.success)
          throw new ConfigError("eval", "expected text_output from the server, got another answer");
        const text = parsed.data.text_output.startsWith(prompt)
          ? parsed.data.text_output.slice(prompt.length)
          : parsed.data.text_output;
        const cuts = stop.map((end) => text.indexOf(end)).filter((at) => at >= 0);
        return cuts.length === 0 ? text : text.slice(0, Math.min(...cuts));
      },
    );
    for (const [index, text] of texts.entries())
      yield { type: "end", index, reason: "stop", text, numPromptTokens: 0, numNewTokens: 0 };
  }
}

function noLogprobs(): ConfigError {
  return new ConfigError(
    "eval",
    "expected a server with log-probabilities of prompts, got KServe's generate route",
  );
}
