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
    for await (const event of this.#run(prompt, options))
      if (event.type !== "prompt" && event.text !== "") yield event.text;
  }

  /** The whole continuation. Throws RequestError, ConfigError, EngineFailedError. */
  async generate(prompt: ModelPrompt, options: GenerateOptions = {}): Promise<GeneratedText> {
    const tokens: TokenLogprobs[] = [];
    let text = "";
    let result: GeneratedText | undefined;
    for await (const event of this.#run(prompt, options)) {
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

  /** The answer to a conversation, by the model's chat template. Throws TokenizerError where it has none, and as `generate`. */
  async chat(messages: readonly ChatMessage[], options: GenerateOptions = {}): Promise<GeneratedText> {
    return await this.generate(this.#rendered(messages), options);
  }

  /** As `chat`, the answer as it becomes certain. */
  async *streamChat(messages: readonly ChatMessage[], options: GenerateOptions = {}): AsyncGenerator<string> {
    yield* this.stream(this.#rendered(messages), options);
  }

  #rendered(messages: readonly ChatMessage[]): number[] {
    const text = this.chatTemplates.render(messages, { addGenerationPrompt: true });
    return Array.from(this.tokenizer.encode(text, { specialTokens: "parse" }));
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

  #run(prompt: ModelPrompt, options: GenerateOptions): ReturnType<Engine["generate"]> {
    const { signal, constraint, numLogprobs, adapter, ...sampling } = options;
    const seed = sampling.seed ?? randomInt(2 ** 48 - 1);
    const request = {
      prompt: typeof prompt === "string" ? promptTokens(this.tokenizer, prompt) : prompt,
      sampling: parseSampling({ ...sampling, seed }),
      constraint,
      numLogprobs,
      adapter,
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
