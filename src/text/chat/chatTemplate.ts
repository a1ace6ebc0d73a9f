/**
 * Conversations as one text, by the template that comes with a model. Knows nothing of tokenizers: the text is to be encoded with
 * special tokens parsed, and so a message that holds one is not told apart from the template's own, as in `transformers`.
 * Source: `transformers`, apply_chat_template (variables, choice among named templates); Jinja by Hugging Face's library.
 */
import { Template } from "@huggingface/jinja";
import { TokenizerError, messageOf } from "../../base/index.ts";
import { type TokenizerConfig, readTokenizerConfig } from "../tokenizerConfig.ts";

const component = "chat template";

/** One turn; templates may read more fields, such as `tool_calls` and `name`. */
export interface ChatMessage {
  /** "system", "user", "assistant", "tool" or another one that the template knows. */
  role: string;
  /** null in a turn that only calls tools. */
  content: string | null;
  readonly [field: string]: unknown;
}

export interface ChatTemplateOptions {
  /** Descriptions of functions, as JSON schema. */
  tools?: readonly unknown[];
  /** Ends the text where the assistant's answer begins. Default: false, as in `transformers`. */
  addGenerationPrompt?: boolean;
  /** Further variables that the template asks for. */
  variables?: Readonly<Record<string, unknown>>;
}

export class ChatTemplate {
  readonly #template: Template;
  readonly #tokens: Readonly<Record<string, string>>;

  /** `tokens` are variables such as bos_token. Throws TokenizerError when `source` is no Jinja template. */
  constructor(source: string, tokens: Readonly<Record<string, string>> = {}) {
    try {
      this.#template = new Template(source);
    } catch (error) {
      throw new TokenizerError(component, `expected a Jinja template, got one with ${messageOf(error)}`, {
        cause: error,
      });
    }
    this.#tokens = tokens;
  }

  /** The text of a conversation. Throws TokenizerError when the template refuses it, with the template's own words. */
  render(messages: readonly ChatMessage[], options: ChatTemplateOptions = {}): string {
    const { tools, addGenerationPrompt = false, variables = {} } = options;
    try {
      return this.#template.render({
        ...this.#tokens,
        messages,
        tools: tools ?? null,
        documents: null,
        add_generation_prompt: addGenerationPrompt,
        ...variables,
      });
    } catch (error) {
      throw new TokenizerError(
        component,
        `expected a conversation that the model's template takes, got its answer "${messageOf(error)}"`,
        { cause: error },
      );
    }
  }
}

/** The templates of a model folder. */
export class ChatTemplates {
  readonly names: readonly string[];
  readonly #config: TokenizerConfig;
  readonly #parsed = new Map<string, ChatTemplate>();

  constructor(config: TokenizerConfig) {
    this.#config = config;
    this.names = [...config.chatTemplates.keys()];
  }

  /**
   * The template of this name; without one "tool_use" if there are tools and such a template, else "default". Throws TokenizerError
   * when there is none.
   */
  choose({ name, hasTools = false }: { name?: string; hasTools?: boolean } = {}): ChatTemplate {
    const templates = this.#config.chatTemplates;
    const chosen = name ?? (hasTools && templates.has("tool_use") ? "tool_use" : "default");
    const source = templates.get(chosen);
    if (source === undefined) {
      const got = this.names.length === 0 ? "none" : this.names.join(", ");
      throw new TokenizerError(component, `expected a chat template '${chosen}' with the model, got ${got}`, {
        hint:
          this.names.length === 0 ? "base models have none; give the prompt as text" : "name one of these",
      });
    }
    let template = this.#parsed.get(chosen);
    if (template === undefined) {
      template = new ChatTemplate(source, tokensOf(this.#config));
      this.#parsed.set(chosen, template);
    }
    return template;
  }

  /** Renders with the template that `choose` gives. Throws TokenizerError. */
  render(messages: readonly ChatMessage[], options: ChatTemplateOptions & { name?: string } = {}): string {
    const { name, ...others } = options;
    const hasTools = others.tools !== undefined && others.tools.length > 0;
    return this.choose({ ...(name === undefined ? {} : { name }), hasTools }).render(messages, others);
  }
}

/**
 * The chat templates of a folder: chat_template.jinja, additional_chat_templates/, or the field of tokenizer_config.json. Throws
 * FileError and TokenizerError.
 */
export function loadChatTemplates(folder: string): ChatTemplates {
  return new ChatTemplates(readTokenizerConfig(folder));
}

function tokensOf({
  bosToken,
  eosToken,
  padToken,
  unkToken,
  sepToken,
}: TokenizerConfig): Record<string, string> {
  const all = {
    bos_token: bosToken,
    eos_token: eosToken,
    pad_token: padToken,
    unk_token: unkToken,
    sep_token: sepToken,
  };
  return Object.fromEntries(
    Object.entries(all).flatMap(([name, token]) => (token === undefined ? [] : [[name, token]])),
  );
}
