/**
 * A model in a program of yours: `const model = await load("DIR"); for await (const text of model.stream("Once")) …`. Computing happens
 * in a worker thread; many calls at once share its steps.
 */
import { randomInt } from "node:crypto";
import { invariant } from "../../base/index.ts";
import { EngineLanguageModel, parseSampling, promptTokens } from "../../infer/index.ts";
import type {
  Engine,
  EngineFinishReason,
  OutputConstraint,
  SamplingInput,
  TokenLogprobs,
} from "../../infer/index.ts";
import { conversationPrompt } from "./conversation.ts";
import { loadChatTemplates } from "../../text/index.ts";
import type { ChatMessage, ChatTemplates, LanguageModel, Tokenizer } from "../../text/index.ts";
import { openEngine } from "./openEngine.ts";
import type { EngineSettings, OpenEngine } from "./openEngine.ts";
import { openThreadedEngine } from "./openThreadedEngine.ts";

export interface LoadOptions extends Omit<EngineSettings, "model"> {
  /** Where the engine runs: "worker" (default), or in the calling thread, which then computes between its other work. */
  thread?: "worker" | "caller";
}

/** Sampling options, and what goes with a single call. Without a seed each call draws its own. */
export interface GenerateOptions extends SamplingInput {
  signal?: AbortSignal;
  /** Which tokens may come: a regular expression, a JSON schema, any JSON object. */
  constraint?: OutputConstraint;
  /** With each token so many most likely ones. */
  numLogprobs?: number;
  /** Name of a loaded adapter. */
  adapter?: string;
}

export interface GeneratedText {
  text: string;
  reason: EngineFinishReason;
  tokens: readonly TokenLogprobs[];
  numPromptTokens: number;
  numCachedTokens: number;
}

/** A prompt: text, ids, or a conversation rendered by the model's chat template. */
export type ModelPrompt = string | readonly number[];

export class LoadedModel implements AsyncDisposable {
  readonly engine: Engine;
  readonly tokenizer: Tokenizer;
  readonly chatTemplates: ChatTemplates;
  readonly #open: OpenEngine;

  constructor(open: OpenEngine) {
    this.#open = open;
    this.engine = open.engine;
    this.tokenizer = open.tokenizer;
    this.chatTemplates = loadChatTemplates(open.folder);
  }

  /** What was loaded. */
  get path(): string {
    return this.#open.path;
  }

  /** The continuation as it becomes certain. Leaving the loop stops it. Throws RequestError, ConfigError, EngineFailedError. */
  async *stream(prompt: ModelPrompt, options: GenerateOptions = {}): AsyncGenerator<string> {
    yield* this.#texts(prompt, options);
  }

  async *#texts(
    prompt: ModelPrompt,
    options: GenerateOptions,
    endTokens?: readonly number[],
  ): AsyncGenerator<string> {
    for await (const event of this.#run(prompt, options, endTokens))
      if (event.type !== "prompt" && event.text !== "") yield event.text;
  }

  /** The whole continuation. Throws RequestError, ConfigError, EngineFailedError. */
  async generate(prompt: ModelPrompt, options: GenerateOptions = {}): Promise<GeneratedText> {
    return await this.#whole(prompt, options);
  }

  async #whole(
    prompt: ModelPrompt,
    options: GenerateOptions,
    endTokens?: readonly number[],
  ): Promise<GeneratedText> {
    const tokens: TokenLogprobs[] = [];
    let text = "";
    let result: GeneratedText | undefined;
    for await (const event of this.#run(prompt, options, endTokens)) {
      if (event.type === "prompt") continue;
      text += event.text;
      if (event.type === "token") {
        const { type: _type, text: _text, ...token } = event;
        tokens.push(token);
      } else {
        const { reason, numPromptTokens, numCachedTokens } = event;
        result = { text, reason, tokens, numPromptTokens, numCachedTokens };
      }
    }
    invariant(result !== undefined, "an engine tells the end");
    return result;
  }

  /**
   * The answer to a conversation, by the model's chat template, or in the format of Nemotron's chat models where it has none. Throws
   * TokenizerError and DataError for what the format refuses, and as `generate`.
   */
  async chat(messages: readonly ChatMessage[], options: GenerateOptions = {}): Promise<GeneratedText> {
    const { prompt, stop, endTokens } = conversationPrompt(this, messages);
    return await this.#whole(prompt, { ...options, stop: [...(options.stop ?? []), ...stop] }, endTokens);
  }

  /** As `chat`, the answer as it becomes certain. */
  async *streamChat(messages: readonly ChatMessage[], options: GenerateOptions = {}): AsyncGenerator<string> {
    const { prompt, stop, endTokens } = conversationPrompt(this, messages);
    yield* this.#texts(prompt, { ...options, stop: [...(options.stop ?? []), ...stop] }, endTokens);
  }

  /** Hidden states of each text, f32 (C): the mean over its tokens, or the last token's. */
  async embed(texts: readonly string[], pooling: "mean" | "last" = "mean"): Promise<Float32Array[]> {
    return await this.engine.embed(
      texts.map((text) => promptTokens(this.tokenizer, text)),
      pooling,
    );
  }

  /** The model as evaluation and guardrails take it. */
  languageModel(name: string = this.path): LanguageModel {
    return new EngineLanguageModel(this.engine, { name, tokenizer: this.tokenizer });
  }

  #run(
    prompt: ModelPrompt,
    options: GenerateOptions,
    endTokens?: readonly number[],
  ): ReturnType<Engine["generate"]> {
    const { signal, constraint, numLogprobs, adapter, ...sampling } = options;
    const seed = sampling.seed ?? randomInt(2 ** 48 - 1);
    const request = {
      prompt: typeof prompt === "string" ? promptTokens(this.tokenizer, prompt) : prompt,
      sampling: parseSampling({ ...sampling, seed }),
      constraint,
      numLogprobs,
      adapter,
      ...(endTokens === undefined ? {} : { endTokens }),
    };
    return this.engine.generate(request, signal);
  }

  /** Ends what is under way and frees the model. */
  async dispose(): Promise<void> {
    await this.#open[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }
}

/**
 * Loads a run, one of its checkpoints, or a model in any supported format. Throws CheckpointError, ConfigError, TokenizerError, DeviceError,
 * OutOfMemoryError.
 */
export async function load(model: string, options: LoadOptions = {}): Promise<LoadedModel> {
  const { thread = "worker", ...settings } = options;
  const open = thread === "worker" ? openThreadedEngine : openEngine;
  return new LoadedModel(await open({ ...settings, model }));
}
