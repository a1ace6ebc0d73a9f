/**
 * The tokenizer in a GGUF's metadata as the files that Hugging Face folders have: a SentencePiece model for kind "llama", a tokenizer.json for
 * kind "gpt2" (byte-level BPE), and tokenizer_config.json. Keys: ggml-org/ggml, docs/gguf.md; expressions of the words: the tokenizers
 * that the models were published with, by llama.cpp's names of them.
 */
import type { GgufFile, GgufValue } from "./reader.ts";
import { sentencePieceModel } from "./sentencePieceModel.ts";
import type { GgufTokenIds } from "./sentencePieceModel.ts";

type Metadata = GgufFile["metadata"];

export interface GgufTokenizer {
  readonly files: ReadonlyMap<string, () => Uint8Array>;
  /** Why there are no files though the metadata has a tokenizer. */
  readonly reason: string | undefined;
}

/** llama.cpp's numbers for kinds of tokens; those of SentencePiece. */
export const tokenType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** How words are cut by llama.cpp's name of it: an expression, and what goes before it. */
interface Splitting {
  pattern: string | undefined;
  composes?: boolean;
  ignoresMerges?: boolean;
}

const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const rest = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const llama3: Splitting = {
  pattern: `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|${rest}`,
  ignoresMerges: true,
};
const qwen2: Splitting = {
  pattern: `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|${rest}`,
  composes: true,
};
const upper = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
const lower = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
const other = "[^\\r\\n\\p{L}\\p{N}]?";
const tekken: Splitting = {
  pattern: `${other}${upper}*${lower}+|${other}${upper}+${lower}*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`,
  ignoresMerges: true,
};
const splittings: ReadonlyMap<string, Splitting> = new Map([
  ["gpt-2", { pattern: undefined }],
  ["llama-bpe", llama3],
  ["llama3", llama3],
  ["llama-v3", llama3],
  ["qwen2", qwen2],
  ["deepseek-r1-qwen", qwen2],
  ["tekken", tekken],
]);

/** Reads the tokenizer. */
export function ggufTokenizer(metadata: Metadata): GgufTokenizer {
  const kind = metadata.get("tokenizer.ggml.model");
  if (kind === undefined) return { files: new Map(), reason: undefined };
  const tokens = texts(metadata.get("tokenizer.ggml.tokens"));
  if (tokens === undefined) return without("a tokenizer without tokens");
  const config = (): Uint8Array => json(tokenizerConfig(metadata, tokens, kind));
  if (kind === "llama") {
    const fields = {
      tokens,
      scores: numbers(metadata.get("tokenizer.ggml.scores")),
      types: numbers(metadata.get("tokenizer.ggml.token_type")),
      ids: tokenIds(metadata),
      addsPrefix: metadata.get("tokenizer.ggml.add_space_prefix") !== false,
      removesSpaces: metadata.get("tokenizer.ggml.remove_extra_whitespaces") === true,
    };
    const model = (): Uint8Array => sentencePieceModel(fields);
    return {
      files: new Map([
        ["tokenizer.model", model],
        ["tokenizer_config.json", config],
      ]),
      reason: undefined,
    };
  }
  if (kind !== "gpt2") return without(`a tokenizer of kind ${JSON.stringify(kind)}`);
  const name = metadata.get("tokenizer.ggml.pre") ?? "gpt-2";
  const splitting = typeof name === "string" ? splittings.get(name) : undefined;
  const merges = texts(metadata.get("tokenizer.ggml.merges"));
  if (splitting === undefined) return without(`a tokenizer that cuts words as ${JSON.stringify(name)}`);
  if (merges === undefined) return without("a tokenizer without merges");
  const types = numbers(metadata.get("tokenizer.ggml.token_type"));
  const file = (): Uint8Array => json(byteLevelTokenizer({ tokens, types, merges, splitting }));
  return {
    files: new Map([
      ["tokenizer.json", file],
      ["tokenizer_config.json", config],
    ]),
    reason: undefined,
  };
}

function without(reason: string): GgufTokenizer {
  return { files: new Map(), reason };
}

function texts(value: GgufValue | undefined): string[] | undefined {
  if (typeof value !== "object") return undefined;
  const items = value.filter((item) => typeof item === "string");
  return items.length === value.length ? items : undefined;
}

function numbers(value: GgufValue | undefined): number[] {
  return typeof value === "object" ? value.filter((item) => typeof item === "number") : [];
}

function json(value: unknown): Uint8Array {
  return Buffer.from(`${JSON.stringify(value, undefined, 1)}\n`);
}

function tokenIds(metadata: Metadata): GgufTokenIds {
  const id = (name: string): number | undefined => {
    const value = metadata.get(`tokenizer.ggml.${name}_token_id`);
    return typeof value === "number" ? value : undefined;
  };
  return { bos: id("bos"), eos: id("eos"), pad: id("padding"), unknown: id("unknown") };
}

function tokenizerConfig(
  metadata: Metadata,
  tokens: readonly string[],
  kind: GgufValue,
): Record<string, unknown> {
  const { bos, eos, pad, unknown } = tokenIds(metadata);
  const token = (id: number | undefined): string | null => (id === undefined ? null : (tokens[id] ?? null));
  const template = metadata.get("tokenizer.chat_template");
  return {
    tokenizer_class: kind === "llama" ? "LlamaTokenizer" : "PreTrainedTokenizerFast",
    ...(kind === "llama" ? { legacy: false } : {}),
    add_bos_token: metadata.get("tokenizer.ggml.add_bos_token") === true,
    add_eos_token: metadata.get("tokenizer.ggml.add_eos_token") === true,
    clean_up_tokenization_spaces: false,
    bos_token: token(bos),
    eos_token: token(eos),
    pad_token: token(pad),
    unk_token: token(unknown),
    ...(typeof template === "string" ? { chat_template: template } : {}),
  };
}

interface ByteLevelParts {
  tokens: readonly string[];
  types: readonly number[];
  merges: readonly string[];
  splitting: Splitting;
}

/** A tokenizer.json; control and user-defined tokens are its added ones, which have no place in the words. */
function byteLevelTokenizer({ tokens, types, merges, splitting }: ByteLevelParts): Record<string, unknown> {
  const isAdded = (id: number): boolean =>
    types[id] === tokenType.control || types[id] === tokenType.userDefined;
  const ids = tokens.map((_, id) => id);
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true };
  const split = {
    type: "Split",
    pattern: { Regex: splitting.pattern },
    behavior: "Isolated",
    invert: false,
  };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: ids.filter(isAdded).map((id) => ({
      id,
      content: tokens[id],
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: types[id] === tokenType.control,
    })),
    normalizer: splitting.composes === true ? { type: "NFC" } : null,
    pre_tokenizer:
      splitting.pattern === undefined
        ? { ...byteLevel, use_regex: true }
        : { type: "Sequence", pretokenizers: [split, { ...byteLevel, use_regex: false }] },
    post_processor: null,
    decoder: { ...byteLevel, add_prefix_space: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: splitting.ignoresMerges === true,
      vocab: Object.fromEntries(ids.filter((id) => !isAdded(id)).map((id) => [tokens[id], id])),
      merges: merges.map((merge) => splitMerge(merge)),
    },
  };
}

/** "left right": neither has a space in the byte-level alphabet, but the first character may be one in files of other origin. */
function splitMerge(merge: string): [string, string] {
  const space = merge.indexOf(" ", 1);
  return [merge.slice(0, space), merge.slice(space + 1)];
}
