/**
 * What lies beside a tokenizer in a Hugging Face folder: the names of the special tokens and the chat templates. Knows nothing of how
 * either is used. Sources: `transformers`, tokenizer_config.json, special_tokens_map.json, chat_template.jinja,
 * additional_chat_templates/.
 */
import { existsSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { z } from "zod";
import { TokenizerError, readJson, readText, withFileErrors } from "../base/index.ts";

const component = "tokenizer";
const configName = "tokenizer_config.json";
const templateSuffix = ".jinja";

export interface TokenizerConfig {
  bosToken: string | undefined;
  eosToken: string | undefined;
  padToken: string | undefined;
  unkToken: string | undefined;
  sepToken: string | undefined;
  /** By name; the only or unnamed one is "default". */
  chatTemplates: ReadonlyMap<string, string>;
}

const token = z
  .union([z.string(), z.object({ content: z.string() }).transform(({ content }) => content)])
  .nullish();
const tokens = z.object({
  bos_token: token,
  eos_token: token,
  pad_token: token,
  unk_token: token,
  sep_token: token,
});
const configSchema = tokens.extend({
  chat_template: z
    .union([z.string(), z.array(z.object({ name: z.string(), template: z.string() }))])
    .nullish(),
});

/** Of `folder`; what is not there is undefined or empty. Throws FileError, and TokenizerError when a field is no such thing. */
export function readTokenizerConfig(folder: string): TokenizerConfig {
  const read = <Schema extends z.ZodType>(name: string, schema: Schema): z.output<Schema> => {
    const path = join(folder, name);
    const result = schema.safeParse(existsSync(path) ? readJson(component, path) : {});
    if (result.success) return result.data;
    const [{ path: field, message }] = result.error.issues;
    throw new TokenizerError(component, `${path}: expected a usable ${field.join(".")}, got: ${message}`, {
      fields: { path },
    });
  };
  const config = read(configName, configSchema);
  const map = read("special_tokens_map.json", tokens);
  return {
    bosToken: config.bos_token ?? map.bos_token ?? undefined,
    eosToken: config.eos_token ?? map.eos_token ?? undefined,
    padToken: config.pad_token ?? map.pad_token ?? undefined,
    unkToken: config.unk_token ?? map.unk_token ?? undefined,
    sepToken: config.sep_token ?? map.sep_token ?? undefined,
    chatTemplates: chatTemplatesOf(folder, config.chat_template ?? []),
  };
}

/** Templates in files of their own count before those inside tokenizer_config.json. */
function chatTemplatesOf(
  folder: string,
  inConfig: string | readonly { name: string; template: string }[],
): ReadonlyMap<string, string> {
  const templates = new Map<string, string>();
  if (typeof inConfig === "string") templates.set("default", inConfig);
  else for (const { name, template } of inConfig) templates.set(name, template);
  const more = join(folder, "additional_chat_templates");
  const names = existsSync(more)
    ? withFileErrors(component, "a folder of chat templates", more, () => readdirSync(more))
    : [];
  for (const name of names.filter((n) => n.endsWith(templateSuffix)).sort())
    templates.set(basename(name, templateSuffix), readText(component, join(more, name)));
  const single = join(folder, "chat_template.jinja");
  if (existsSync(single)) templates.set("default", readText(component, single));
  return templates;
}
