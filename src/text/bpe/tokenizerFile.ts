/**
 * The `tokenizer.json` of a byte-pair encoding with byte fallback: the format of Hugging Face's `tokenizers` (0.20 and later,
 * where merges are pairs). Knows nothing of files. Invariants: `definitionOf(fileOf(d))` is `d`; a file whose pipeline differs in
 * any way that could change an id is refused by the name of the difference, never read as something near.
 */
import { z } from "zod";
import { TokenizerError } from "../../base/index.ts";
import { wordPattern } from "./characterClasses.ts";
import { type BpeDefinition, type Merge, bytePieceOf, standardSpecialTokens } from "./definition.ts";

const component = "tokenizer";

const addedToken = z.object({
  id: z.int().nonnegative(),
  content: z.string().min(1),
  single_word: z.boolean(),
  lstrip: z.boolean(),
  rstrip: z.boolean(),
  normalized: z.boolean(),
  special: z.boolean(),
});

/** The parts every tokenizer.json has; `kindOf` and `definitionOf` look closer. */
const anyFile = z.object({
  added_tokens: z.array(addedToken).optional(),
  normalizer: z.unknown().optional(),
  pre_tokenizer: z.unknown().optional(),
  post_processor: z.unknown().optional(),
  decoder: z.unknown().optional(),
  model: z.looseObject({ type: z.string().optional() }),
});

const bpeModel = z.object({
  type: z.literal("BPE"),
  dropout: z.number().nullish(),
  continuing_subword_prefix: z.string().nullish(),
  end_of_word_suffix: z.string().nullish(),
  byte_fallback: z.boolean().optional(),
  ignore_merges: z.boolean().optional(),
  // Not z.record: that leaves out a piece named "__proto__".
  vocab: z.custom<Readonly<Record<string, number>>>(isVocabulary, { error: "an object from pieces to ids" }),
  merges: z.array(z.tuple([z.string(), z.string()])),
});

const preTokenizer = {
  type: "Split",
  pattern: { Regex: wordPattern },
  behavior: "Isolated",
  invert: false,
} as const;
const decoder = { type: "Sequence", decoders: [{ type: "ByteFallback" }, { type: "Fuse" }] } as const;

function isVocabulary(value: unknown): boolean {
  return (
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((id) => Number.isInteger(id) && id >= 0)
  );
}

/** The content of tokenizer.json. */
export function fileOf({ pieces, merges, specialTokens }: BpeDefinition): object {
  const ids = new Map(pieces.map((piece, id) => [piece, id]));
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content) => ({
      id: ids.get(content),
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: preTokenizer,
    post_processor: null,
    decoder,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: standardSpecialTokens.unk,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: true,
      ignore_merges: false,
      vocab: Object.fromEntries(ids),
      merges: merges.map(({ left, right }) => [pieces[left], pieces[right]]),
    },
  };
}

/** The definition in the content of a tokenizer.json. `path` is for messages. Throws TokenizerError. */
export function definitionOf(content: unknown, path: string): BpeDefinition {
  const file = parse(anyFile, content, path);
  const difference = differenceOf(file);
  if (difference !== undefined) {
    throw new TokenizerError(
      component,
      `expected in ${path} a byte-pair encoding with byte fallback as Nautilus trains it, got ${difference}`,
      { hint: "train one with 'nautilus tokenizer train'", fields: { path } },
    );
  }
  const model = parse(bpeModel, file.model, path, "model.");
  const addedTokens = file.added_tokens ?? [];
  const pieces = piecesById(model.vocab, addedTokens, path);
  const ids = new Map(pieces.map((piece, id) => [piece, id]));
  for (let byte = 0; byte < 256; byte++) {
    if (!ids.has(bytePieceOf(byte)))
      throw broken(path, `a piece for every byte in model.vocab, got none for '${bytePieceOf(byte)}'`);
  }
  const merges = model.merges.map(([left, right], rank): Merge => {
    const idOf = (piece: string): number => {
      const id = ids.get(piece);
      if (id === undefined)
        throw broken(path, `model.merges[${rank}] of known pieces, got ${JSON.stringify(piece)}`);
      return id;
    };
    return { left: idOf(left), right: idOf(right), merged: idOf(left + right) };
  });
  return { pieces, merges, specialTokens: addedTokens.map((token) => token.content) };
}

/**
 * The name of the first setting that could change an id and that our encoder does not know, or undefined for a pipeline such as
 * Nautilus writes. `path` is for messages. Throws TokenizerError when the content is no tokenizer.json at all.
 */
export function differenceFromOurs(content: unknown, path: string): string | undefined {
  return differenceOf(parse(anyFile, content, path));
}

function differenceOf(file: z.output<typeof anyFile>): string | undefined {
  const { model } = file;
  if (model.type !== "BPE") return `a model of type '${model.type ?? "none"}'`;
  if (file.normalizer !== null && file.normalizer !== undefined)
    return `normalizer '${typeOf(file.normalizer)}'`;
  if (!isSame(file.pre_tokenizer, preTokenizer)) {
    const type = typeOf(file.pre_tokenizer);
    return type === "Split" ? "pre_tokenizer 'Split' with another pattern" : `pre_tokenizer '${type}'`;
  }
  if (file.post_processor !== null && file.post_processor !== undefined)
    return `post_processor '${typeOf(file.post_processor)}'`;
  if (!isSame(file.decoder, decoder)) return `decoder '${typeOf(file.decoder)}' other than byte fallback`;
  if (model["byte_fallback"] !== true) return "no byte_fallback";
  for (const setting of ["dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"]) {
    const value = model[setting];
    if (value !== undefined && value !== null && value !== false)
      return `model.${setting} ${JSON.stringify(value)}`;
  }
  for (const token of file.added_tokens ?? []) {
    const name = JSON.stringify(token.content);
    if (!token.special) return `the added token ${name} that is not special`;
    if (token.lstrip || token.rstrip || token.single_word)
      return `the added token ${name} with lstrip, rstrip or single_word`;
  }
  return undefined;
}

function piecesById(
  vocab: Readonly<Record<string, number>>,
  addedTokens: readonly { id: number; content: string }[],
  path: string,
): string[] {
  const pieces: string[] = [];
  const put = (piece: string, id: number): void => {
    if (pieces[id] !== undefined && pieces[id] !== piece)
      throw broken(
        path,
        `one piece for id ${id}, got ${JSON.stringify(pieces[id])} and ${JSON.stringify(piece)}`,
      );
    pieces[id] = piece;
  };
  const entries = Object.entries(vocab);
  // A wild id must not make an array of billions.
  const limit = entries.length + addedTokens.length;
  for (const [piece, id] of [...entries, ...addedTokens.map(({ content, id }) => [content, id] as const)]) {
    if (id >= limit) throw broken(path, `ids without gaps, got ${id} for ${JSON.stringify(piece)}`);
    put(piece, id);
  }
  for (const { content, id } of addedTokens) {
    const inVocab = Object.hasOwn(vocab, content) ? vocab[content] : id;
    if (inVocab !== id) throw broken(path, `one id for ${JSON.stringify(content)}, got ${inVocab} and ${id}`);
  }
  for (let id = 0; id < pieces.length; id++)
    if (pieces[id] === undefined) throw broken(path, `ids without gaps, got no piece for ${id}`);
  return pieces;
}

function parse<Schema extends z.ZodType>(
  schema: Schema,
  value: unknown,
  path: string,
  prefix = "",
): z.output<Schema> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const field = `${prefix}${issue.path.join(".")}`;
  const expected = issue.message.replace(/^Invalid input: expected /, "").replace(/, received /, ", got ");
  throw broken(path, field === "" ? expected : `${field}: ${expected}`);
}

function broken(path: string, expected: string): TokenizerError {
  return new TokenizerError(component, `${path}: expected ${expected}`, {
    hint: "the file is damaged or is not a tokenizer.json",
    fields: { path },
  });
}

function typeOf(value: unknown): string {
  return typeof value === "object" && value !== null && "type" in value ? String(value.type) : "none";
}

/** Whether `value` has all fields of `expected` with the same values. */
function isSame(value: unknown, expected: unknown): boolean {
  if (typeof expected !== "object" || expected === null) return value === expected;
  if (typeof value !== "object" || value === null) return false;
  if (Array.isArray(expected) && (!Array.isArray(value) || value.length !== expected.length)) return false;
  return Object.entries(expected).every(([key, field]) => isSame(Reflect.get(value, key), field));
}
