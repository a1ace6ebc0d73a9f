import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BpeTokenizer } from "./bpe/bpeTokenizer.ts";
import { definitionOf } from "./bpe/tokenizerFile.ts";
import { loadTokenizer, saveTokenizer } from "./loadTokenizer.ts";
import { OfficialTokenizer } from "./official/officialTokenizer.ts";
import { SentencePieceTokenizer } from "./sentencepiece/sentencePieceTokenizer.ts";

const fixture = join(import.meta.dirname, "../../test/fixtures/tokenizer");

/** A tokenizer.json as far as the tests below change it. */
interface TokenizerJson {
  added_tokens: Record<string, unknown>[];
  normalizer: unknown;
  pre_tokenizer: { type: string; pattern: { Regex: string } };
  post_processor: unknown;
  decoder: { type: string; decoders: { type: string }[] };
  model: Record<string, unknown> & { vocab: Record<string, number>; merges: unknown[] };
}

let folder: string;
beforeAll(() => (folder = mkdtempSync(join(tmpdir(), "nautilus-text-"))));
afterAll(() => rmSync(folder, { recursive: true }));

function readFixture(): TokenizerJson {
  return JSON.parse(readFileSync(join(fixture, "tokenizer.json"), "utf8"));
}

/** Loads the fixture after a change. */
function loadChanged(change: (file: TokenizerJson) => void): unknown {
  const file = readFixture();
  change(file);
  const path = join(folder, "tokenizer.json");
  writeFileSync(path, JSON.stringify(file));
  return loadTokenizer(path);
}

describe("loadTokenizer", () => {
  it("reads what saveTokenizer wrote, by folder and by file, to the byte", () => {
    const tokenizer = loadTokenizer(fixture);
    if (!(tokenizer instanceof BpeTokenizer)) throw new TypeError("the fixture is a BPE tokenizer");
    const copy = join(folder, "deep/copy");
    saveTokenizer(tokenizer, copy);
    expect(readdirSync(copy).sort()).toEqual(["tokenizer.json", "tokenizer_config.json"]);
    for (const name of readdirSync(copy)) {
      expect(readFileSync(join(copy, name), "utf8")).toBe(readFileSync(join(fixture, name), "utf8"));
    }
    expect(loadTokenizer(join(copy, "tokenizer.json")).encode("a ship")).toEqual(tokenizer.encode("a ship"));
  });

  it("says what is missing or not JSON", () => {
    expect(() => loadTokenizer(join(folder, "nowhere"))).toThrow(
      /expected a tokenizer at .*nowhere, got nothing there/,
    );
    const path = join(folder, "cut.json");
    writeFileSync(path, readFileSync(join(fixture, "tokenizer.json")).subarray(0, 1000));
    expect(() => loadTokenizer(path)).toThrow(/expected JSON in .*cut\.json/);
    writeFileSync(path, "[1]");
    expect(() => loadTokenizer(path)).toThrow(/cut\.json: expected object, got array/);
    writeFileSync(path, "{}");
    expect(() => loadTokenizer(path)).toThrow(/cut\.json: expected model: object, got undefined/);
  });

  it.each<[name: string, change: (file: TokenizerJson) => void, message: RegExp]>([
    [
      "no vocabulary",
      (f) => Reflect.deleteProperty(f.model, "vocab"),
      /model\.vocab: an object from pieces to ids/,
    ],
    [
      "a vocabulary of texts",
      (f) => Reflect.set(f.model.vocab, "the", "x"),
      /model\.vocab: an object from pieces/,
    ],
    ["no merges", (f) => Reflect.deleteProperty(f.model, "merges"), /model\.merges: array, got undefined/],
    ["merges as texts", (f) => f.model.merges.push("t h"), /model\.merges\.\d+: tuple, got string/],
    [
      "a merge of no piece",
      (f) => f.model.merges.push(["t", "q!"]),
      /model\.merges\[\d+\] of known pieces, got "q!"/,
    ],
    ["a merge into no piece", (f) => f.model.merges.push(["<pad>", "e"]), /of known pieces, got "<pad>e"/],
    ["an id twice", (f) => (f.model.vocab["the"] = 700), /one piece for id 700, got/],
    ["an id far out", (f) => (f.model.vocab["the"] = 1e9), /ids without gaps, got 1000000000 for "the"/],
    ["a hole", (f) => Reflect.deleteProperty(f.model.vocab, "a"), /ids without gaps, got no piece for \d+/],
    [
      "two ids for a token",
      (f) => (f.model.vocab["</s>"] = 1024),
      /one piece for id|one id for|without gaps/,
    ],
    ["no special end", (f) => f.added_tokens.splice(3, 1), /expected a special token '<\/s>' for the end/],
    ["a mixed model", (f) => (f.model["type"] = "Unigram"), /got a model 'Unigram' with another's vocab/],
    ["an unknown model", (f) => (f.model["type"] = "WordLevel"), /got a model of type 'WordLevel'/],
    ["an unknown part", (f) => (f.normalizer = { type: "Magic" }), /known parts, got the answer ".*Magic/],
    [
      "rules it would not follow",
      (f) => (f.normalizer = { type: "Precompiled" }),
      /normalizer 'Precompiled'/,
    ],
    ["dropout", (f) => (f.model["dropout"] = 0.1), /got model\.dropout 0\.1/],
    ["a suffix", (f) => (f.model["end_of_word_suffix"] = "</w>"), /got model\.end_of_word_suffix "<\/w>"/],
    ["single words", (f) => (f.added_tokens[4]["single_word"] = true), /"<\|user\|>" with single_word/],
  ])("refuses %s by name", (_, change, message) => {
    expect(() => loadChanged(change)).toThrow(message);
  });

  it.each<[name: string, change: (file: TokenizerJson) => void, message: RegExp]>([
    ["another model", (f) => (f.model["type"] = "Unigram"), /got a model of type 'Unigram'/],
    ["a normalizer", (f) => (f.normalizer = { type: "NFC" }), /got normalizer 'NFC'/],
    [
      "another pattern",
      (f) => (f.pre_tokenizer.pattern.Regex = "\\s+"),
      /got pre_tokenizer 'Split' with another/,
    ],
    ["another cut", (f) => (f.pre_tokenizer.type = "ByteLevel"), /got pre_tokenizer 'ByteLevel'/],
    ["a post-processor", (f) => (f.post_processor = { type: "ByteLevel" }), /got post_processor 'ByteLevel'/],
    ["another decoder", (f) => f.decoder.decoders.reverse(), /got decoder 'Sequence' other than/],
    ["no byte fallback", (f) => (f.model["byte_fallback"] = false), /got no byte_fallback/],
    ["ignore_merges", (f) => (f.model["ignore_merges"] = true), /got model\.ignore_merges true/],
    ["dropout", (f) => (f.model["dropout"] = 0.1), /got model\.dropout 0\.1/],
    [
      "a plain added token",
      (f) => (f.added_tokens[4]["special"] = false),
      /added token "<\|user\|>" that is not/,
    ],
    [
      "a stripping token",
      (f) => (f.added_tokens[4]["lstrip"] = true),
      /added token "<\|user\|>" with lstrip/,
    ],
  ])("leaves %s to the official library, since our encoder does not know it", (_, change, message) => {
    const file = readFixture();
    change(file);
    expect(() => definitionOf(file, "tokenizer.json")).toThrow(message);
  });

  it("takes other tokenizers to the official library, with the same ids where the difference makes none", () => {
    const ours = loadTokenizer(fixture);
    const text = "The ship\n  sails 12 日本 ﬁ <|user|></s>";
    const others = [
      (f: TokenizerJson) => (f.normalizer = { type: "NFC" }),
      (f: TokenizerJson) => (f.added_tokens[4]["rstrip"] = true),
    ].map((change) => loadChanged(change));
    for (const other of others) {
      if (!(other instanceof OfficialTokenizer)) throw new TypeError("expected the official library");
      expect(other.encode(text)).toEqual(ours.encode(text));
      expect([other.eosId, other.vocabSize]).toEqual([ours.eosId, ours.vocabSize]);
      const parsed = ours.encode(text, { specialTokens: "parse" });
      expect(other.encode(text, { specialTokens: "parse" })).toEqual(parsed);
      expect(other.decodeBytes(parsed, { specialTokens: "show" })).toEqual(
        ours.decodeBytes(parsed, { specialTokens: "show" }),
      );
    }
  });

  it("chooses by what lies in a folder: tokenizer.json, tokenizer.model, the only model", () => {
    const models = join(import.meta.dirname, "../../test/fixtures/sentencepiece");
    const mixed = join(folder, "mixed");
    mkdirSync(mixed);
    copyFileSync(join(models, "bpe-llama.model"), join(mixed, "some.model"));
    expect(loadTokenizer(mixed).vocabSize).toBe(800);
    copyFileSync(join(models, "char.model"), join(mixed, "other.model"));
    expect(() => loadTokenizer(mixed)).toThrow(
      /one SentencePiece model in mixed, got other\.model, some\.model/,
    );
    expect(loadTokenizer(join(mixed, "some.model"))).toBeInstanceOf(SentencePieceTokenizer);
    copyFileSync(join(models, "bpe-nemotron.model"), join(mixed, "tokenizer.model"));
    expect(loadTokenizer(mixed).vocabSize).toBe(900);
    copyFileSync(join(fixture, "tokenizer.json"), join(mixed, "tokenizer.json"));
    expect(loadTokenizer(mixed)).toBeInstanceOf(BpeTokenizer);
    expect(() => loadTokenizer(models)).toThrow(/name the file itself/);
    expect(() => loadTokenizer(join(folder, "deep"))).toThrow(/tokenizer\.json, got nothing there/);
  });

  it("takes special tokens added behind the vocabulary, as the official library writes them", () => {
    const id = 1024;
    const extra = {
      content: "<|tool|>",
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
    };
    const file = loadChanged((f) => f.added_tokens.push({ id, ...extra, special: true }));
    expect(file).toHaveProperty("vocabSize", 1025);
    expect(file instanceof BpeTokenizer && [...file.encode("<|tool|>", { specialTokens: "parse" })]).toEqual([
      id,
    ]);
  });
});
