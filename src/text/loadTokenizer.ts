/**
 * Tokenizers from and to disk. Knows which kinds of files there are, not how they encode.
 * Invariant: what is saved is loaded with the same ids, here and by Hugging Face's `tokenizers` and `transformers`.
 */
import { readdirSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { TokenizerError, readJson, readSmallFile, withFileErrors, writeText } from "../base/index.ts";
import { BpeTokenizer } from "./bpe/bpeTokenizer.ts";
import { standardSpecialTokens } from "./bpe/definition.ts";
import { definitionOf, differenceFromOurs, fileOf } from "./bpe/tokenizerFile.ts";
import { OfficialTokenizer } from "./official/officialTokenizer.ts";
import { parseModel } from "./sentencepiece/modelFile.ts";
import { SentencePieceTokenizer } from "./sentencepiece/sentencePieceTokenizer.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { readTokenizerConfig } from "./tokenizerConfig.ts";

const component = "tokenizer";
const fileName = "tokenizer.json";
const modelSuffix = ".model";

/**
 * Loads a `tokenizer.json` or a SentencePiece `.model`, named itself or by its folder; where both lie, `tokenizer.json` counts.
 * Throws FileError when it cannot be read or is not JSON, TokenizerError when it is damaged or of a kind that is not supported.
 */
export function loadTokenizer(path: string): Tokenizer {
  const isFolder = withFileErrors(component, "a tokenizer", path, () => statSync(path).isDirectory());
  const file = isFolder ? join(path, fileInFolder(path)) : path;
  if (file.endsWith(modelSuffix)) {
    const content = readSmallFile(component, file);
    return new SentencePieceTokenizer(parseModel(content, file));
  }
  const content = readJson(component, file);
  if (differenceFromOurs(content, file) === undefined) return new BpeTokenizer(definitionOf(content, file));
  return new OfficialTokenizer(content, { config: readTokenizerConfig(dirname(file)), path: file });
}

/** The name of the tokenizer's file; that of tokenizer.json where there is none, so that messages name it. */
function fileInFolder(folder: string): string {
  const names = withFileErrors(component, "a folder with a tokenizer", folder, () => readdirSync(folder));
  if (names.includes(fileName)) return fileName;
  const models = names.filter((name) => name.endsWith(modelSuffix)).sort();
  if (models.includes("tokenizer.model")) return "tokenizer.model";
  if (models.length > 1)
    throw new TokenizerError(
      component,
      `expected one SentencePiece model in ${basename(folder)}, got ${models.join(", ")}`,
      {
        hint: "name the file itself",
        fields: { path: folder },
      },
    );
  return models[0] ?? fileName;
}

/**
 * Writes `tokenizer.json`, and the `tokenizer_config.json` by which `transformers` knows the special tokens, into `folder`.
 * Throws FileError.
 */
export function saveTokenizer(tokenizer: BpeTokenizer, folder: string): void {
  const { pad, unk, bos, eos } = standardSpecialTokens;
  const others = tokenizer.definition.specialTokens.filter(
    (token) => ![pad, unk, bos, eos].some((t) => t === token),
  );
  const config = {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: bos,
    eos_token: eos,
    pad_token: pad,
    unk_token: unk,
    additional_special_tokens: others,
    add_bos_token: false,
    add_eos_token: false,
    clean_up_tokenization_spaces: false,
  };
  writeText(component, join(folder, "tokenizer_config.json"), `${JSON.stringify(config, null, 2)}\n`);
  writeText(component, join(folder, fileName), `${JSON.stringify(fileOf(tokenizer.definition), null, 1)}\n`);
}
