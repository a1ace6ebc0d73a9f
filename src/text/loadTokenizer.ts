/**
 * Tokenizers from and to disk. Knows which kinds of tokenizer.json there are, not how they encode.
 * Invariant: what is saved is loaded with the same ids, here and by Hugging Face's `tokenizers` and `transformers`.
 */
import { statSync } from "node:fs";
import { join } from "node:path";
import { readJson, withFileErrors, writeText } from "../base/index.ts";
import { BpeTokenizer } from "./bpe/bpeTokenizer.ts";
import { standardSpecialTokens } from "./bpe/definition.ts";
import { definitionOf, fileOf } from "./bpe/tokenizerFile.ts";
import type { Tokenizer } from "./tokenizer.ts";

const component = "tokenizer";
const fileName = "tokenizer.json";

/**
 * Loads `tokenizer.json`, named itself or by its folder. Throws FileError when it cannot be read or is not JSON, TokenizerError
 * when it is damaged or of a kind that is not supported.
 */
export function loadTokenizer(path: string): Tokenizer {
  const isFolder = withFileErrors(component, "a tokenizer", path, () => statSync(path).isDirectory());
  const file = isFolder ? join(path, fileName) : path;
  return new BpeTokenizer(definitionOf(readJson(component, file), file));
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
