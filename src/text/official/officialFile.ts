/**
 * Which tokenizer.json files Hugging Face's JavaScript library reads as its Rust library does. Knows nothing of files.
 * Invariant: what the JavaScript library leaves out or only comes near to is refused by name.
 */
import { z } from "zod";
import { TokenizerError } from "../../base/index.ts";

const component = "tokenizer";
/** A wild id must not make an array of billions. */
const largestId = 1 << 24;

function isVocabulary(value: unknown): boolean {
  return (
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((id) => Number.isInteger(id) && id >= 0 && id < largestId)
  );
}

const officialFile = z.looseObject({
  added_tokens: z
    .array(
      z.looseObject({
        id: z.int().nonnegative().lt(largestId),
        content: z.string().min(1),
        special: z.boolean().default(false),
        single_word: z.boolean().default(false),
      }),
    )
    .default([]),
  normalizer: z.unknown().default(null),
  pre_tokenizer: z.unknown().default(null),
  post_processor: z.unknown().default(null),
  decoder: z.unknown().default(null),
  model: z.looseObject({
    type: z.string().optional(),
    // Not z.record: that leaves out a piece named "__proto__".
    vocab: z.union(
      [z.array(z.tuple([z.string(), z.number()])), z.custom<Record<string, number>>(isVocabulary)],
      {
        error: "expected an object from pieces to ids or a list of pieces and scores",
      },
    ),
    merges: z
      .union([z.array(z.string()), z.array(z.tuple([z.string(), z.string()]))], {
        error: "expected a list of pairs",
      })
      .optional(),
  }),
});
export type OfficialFile = z.output<typeof officialFile>;

/** The content of a tokenizer.json, checked. `path` is for messages. Throws TokenizerError. */
export function officialFileOf(content: unknown, path: string): OfficialFile {
  const result = officialFile.safeParse(content);
  if (!result.success) {
    const [{ path: field, message }] = result.error.issues;
    throw new TokenizerError(
      component,
      `${path}: expected a tokenizer.json, got ${field.join(".")}: ${message}`,
      {
        hint: "the file is damaged or is not a tokenizer.json",
        fields: { path },
      },
    );
  }
  const reason = unsupportedPart(result.data);
  if (reason !== undefined) {
    throw new TokenizerError(component, `expected in ${path} a tokenizer of supported parts, got ${reason}`, {
      hint: "if a SentencePiece .model lies beside it, name that file itself",
      fields: { path },
    });
  }
  return result.data;
}

/** What the JavaScript library would not do as the Rust library does, or undefined. */
function unsupportedPart({
  added_tokens: added,
  normalizer,
  pre_tokenizer: preTokenizer,
  model,
}: OfficialFile): string | undefined {
  if (!["BPE", "Unigram", "WordPiece"].includes(model.type ?? "none"))
    return `a model of type '${model.type ?? "none"}'`;
  if ((model.type === "Unigram") !== Array.isArray(model.vocab))
    return `a model '${model.type ?? "none"}' with another's vocab`;
  if ((model.type === "BPE") !== (model.merges !== undefined))
    return `a model '${model.type ?? "none"}' ${model.merges === undefined ? "without" : "with"} merges`;
  const parts = [...typesIn(normalizer), ...typesIn(preTokenizer)];
  // It replaces the stored rules by rules of its own that come near.
  if (parts.includes("Precompiled")) return "normalizer 'Precompiled'";
  if (parts.includes("UnicodeScripts")) return "pre_tokenizer 'UnicodeScripts'";
  if (typeof model["dropout"] === "number" && model["dropout"] > 0)
    return `model.dropout ${model["dropout"]}, which makes ids random`;
  if (model.type === "Unigram" && model["byte_fallback"] === true)
    return "a model 'Unigram' with byte_fallback";
  for (const field of ["continuing_subword_prefix", "end_of_word_suffix"]) {
    if (model.type === "BPE" && typeof model[field] === "string" && model[field] !== "")
      return `model.${field} ${JSON.stringify(model[field])} of a model 'BPE'`;
  }
  const word = added.find((token) => token.single_word);
  return word === undefined ? undefined : `the added token ${JSON.stringify(word.content)} with single_word`;
}

/** Whether words are cut around ideographs, as BERT's normaliser does. */
export function separatesIdeographs({ normalizer }: OfficialFile): boolean {
  const separates = z.object({ type: z.literal("BertNormalizer"), handle_chinese_chars: z.literal(true) });
  const sequence = z.object({ normalizers: z.array(z.unknown()) }).safeParse(normalizer);
  return (sequence.data?.normalizers ?? [normalizer]).some((part) => separates.safeParse(part).success);
}

/** The types of a part and of all parts inside it. */
function typesIn(value: unknown): string[] {
  if (Array.isArray(value)) return value.flatMap((each) => typesIn(each));
  if (typeof value !== "object" || value === null) return [];
  const own = "type" in value && typeof value.type === "string" ? [value.type] : [];
  return [...own, ...Object.values(value).flatMap((each) => typesIn(each))];
}
