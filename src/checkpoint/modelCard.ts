/**
 * Model cards as the Hugging Face hub has them: README.md with YAML front matter, of which license and base model matter to whoever passes a
 * model on (https://github.com/huggingface/hub-docs, modelcard.md). Reading is lenient: a card is written by hand.
 */
import { existsSync } from "node:fs";
import { basename, resolve } from "node:path";
import { parse as parseYaml, stringify as stringifyYaml } from "yaml";

export interface ModelCard {
  /** "apache-2.0", "llama3.1", "other", …; undefined when the card does not say. */
  readonly license: string | undefined;
  /** Of a license that the hub has no short name for. */
  readonly licenseName: string | undefined;
  readonly licenseLink: string | undefined;
  /** "org/name" of the models this was made from. */
  readonly baseModels: readonly string[];
  /** All of README.md; undefined where only its facts are known. */
  readonly text: string | undefined;
}

const frontMatter = /^\uFEFF?---\r?\n([\s\S]*?)\r?\n---[ \t]*(?:\r?\n|$)/;

function split(text: string): { fields: Record<string, unknown>; body: string } {
  const match = frontMatter.exec(text);
  if (match === null) return { fields: {}, body: text };
  const body = text.slice(match[0].length);
  try {
    const fields: unknown = parseYaml(match[1], { maxAliasCount: 100 });
    if (typeof fields === "object" && fields !== null && !Array.isArray(fields))
      return { fields: { ...fields }, body };
  } catch {
    // A card whose front matter is broken is read as text.
  }
  return { fields: {}, body };
}

/** What stands below the front matter of README.md. */
export function modelCardBody(text: string): string {
  return split(text).body;
}

/** Reads README.md. */
export function parseModelCard(text: string): ModelCard {
  const { fields } = split(text);
  const field = (key: string): string | undefined => {
    const value = fields[key];
    return typeof value === "string" && value !== "" ? value : undefined;
  };
  const base: unknown = fields["base_model"];
  const bases: readonly unknown[] = Array.isArray(base) ? base : [base];
  return {
    license: field("license"),
    licenseName: field("license_name"),
    licenseLink: field("license_link"),
    baseModels: bases.filter((name): name is string => typeof name === "string" && name !== ""),
    text,
  };
}

/** What to put into a card. */
export interface ModelCardChanges {
  license: string | undefined;
  baseModel: string | undefined;
  /** For a card that is written anew; its library is "transformers" unless named. */
  title: string;
  description: string;
  library?: "transformers" | "peft";
}

/** The card with its license and base model filled in; a new one where there was none. */
export function writeModelCard(
  card: ModelCard | undefined,
  { license, baseModel, title, description, library = "transformers" }: ModelCardChanges,
): string {
  const { fields, body } = split(card?.text ?? "");
  const known = {
    license: license ?? card?.license ?? "unknown",
    ...(license === undefined && card?.licenseName !== undefined ? { license_name: card.licenseName } : {}),
    ...(license === undefined && card?.licenseLink !== undefined ? { license_link: card.licenseLink } : {}),
  };
  const bases = baseModel === undefined ? (card?.baseModels ?? []) : [baseModel];
  const { license_name: _name, license_link: _link, ...others } = fields;
  const front = {
    library_name: library,
    pipeline_tag: "text-generation",
    ...others,
    ...known,
    ...(bases.length === 0 ? {} : { base_model: bases.length === 1 ? bases[0] : bases }),
  };
  const fallback = `\n# ${title}\n\n${description}\n`;
  return `---\n${stringifyYaml(front)}---\n${body.trim() === "" ? fallback : body}`;
}

/** What a card says of a model: its repository, or the name of a folder, whose place is nobody else's business. */
export function publishedName(model: string): string {
  return repositoryOf(model) ?? (existsSync(model) ? basename(resolve(model)) : model);
}

/** The repository that a path in the hub's cache belongs to. */
export function repositoryOf(path: string): string | undefined {
  const [, organisation, name] = /models--([^/\\]+?)--([^/\\]+)[/\\]snapshots[/\\]/.exec(`${path}/`) ?? [];
  return organisation === undefined ? undefined : `${organisation}/${name}`;
}
