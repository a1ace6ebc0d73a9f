import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { loadTokenizer } from "../loadTokenizer.ts";
import { OfficialTokenizer } from "./officialTokenizer.ts";

const folder = join(import.meta.dirname, "../../../test/fixtures/tokenizer-json");
const ids = z.array(z.int());
const schema = z.object({
  texts: z.array(z.string()),
  rows: z.array(z.tuple([ids, ids, z.string(), z.string()])),
});
const readExpected = (name: string) =>
  schema.parse(JSON.parse(readFileSync(join(folder, name, "expected.json"), "utf8")));
const load = (name: string) => loadTokenizer(join(folder, name));

describe.each(readdirSync(folder))("the Rust library and %s", (name) => {
  const { texts, rows } = readExpected(name);
  const tokenizer = load(name);

  it("give the same ids for every text, special tokens parsed", () => {
    expect(tokenizer).toBeInstanceOf(OfficialTokenizer);
    const different = texts.filter((text, i) => {
      const got = [...tokenizer.encode(text, { specialTokens: "parse" })];
      return JSON.stringify(got) !== JSON.stringify(rows[i][1]);
    });
    expect(different).toEqual([]);
  });

  it("give the same ids for every text, special tokens as text", () => {
    const different = texts.filter(
      (text, i) => JSON.stringify([...tokenizer.encode(text)]) !== JSON.stringify(rows[i][0]),
    );
    expect(different).toEqual([]);
  });

  it("give the same text for ids, special tokens shown and skipped", () => {
    for (const [, parsed, shown, skipped] of rows) {
      expect(tokenizer.decode(parsed, { specialTokens: "show" }), JSON.stringify(parsed)).toBe(shown);
      expect(tokenizer.decode(parsed)).toBe(skipped);
    }
  });

  it("decode piece by piece to the same text", () => {
    for (const specialTokens of ["show", "skip"] as const) {
      const decoder = tokenizer.createDecoder({ specialTokens });
      for (const [, parsed] of rows) {
        const text = parsed.map((id) => decoder.push(id)).join("") + decoder.flush();
        expect(text).toBe(tokenizer.decode(parsed, { specialTokens }));
      }
    }
  });
});

describe("OfficialTokenizer", () => {
  it("takes the special ids from tokenizer_config.json, and adds none unasked", () => {
    const special = (name: string) => {
      const { bosId, eosId, padId, unkId } = load(name);
      return [bosId, eosId, padId, unkId];
    };
    expect(special("llama3")).toEqual([700, 702, undefined, undefined]);
    expect(special("unigram")).toEqual([2, 3, 0, 1]);
    expect(special("wordpiece")).toEqual([undefined, 3, 0, 1]);
    expect(load("llama3").encode("a")).not.toContain(700);
    expect(load("llama2").encode("</s>")).not.toContain(2);
  });

  it("gives the exact bytes of byte-level pieces, also of half a character", () => {
    const tokenizer = load("gpt2");
    const ids = tokenizer.encode("a\u{13674}");
    expect(Buffer.from(tokenizer.decodeBytes(ids.subarray(0, -1)))).toEqual(
      Buffer.from("a\u{13674}").subarray(0, -1),
    );
    const decoder = tokenizer.createDecoder();
    expect([...ids].map((id) => decoder.push(id)).join("")).toBe("a\u{13674}");
    expect(tokenizer.encodeBytes(Uint8Array.of(0x61, 0xff))).toEqual(tokenizer.encode("a\ufffd"));
  });

  it("keeps the first space of a text that goes on", () => {
    for (const name of ["llama2", "unigram"]) {
      const tokenizer = load(name);
      const ids = tokenizer.encode("ship");
      expect(tokenizer.decode(ids)).toBe("ship");
      expect(tokenizer.decode(ids, { startsText: false })).toBe(" ship");
      const decoder = tokenizer.createDecoder({ startsText: false });
      expect(decoder.push(ids)).toBe(" ship");
    }
  });

  it("refuses ids that do not exist, and knows its pieces", () => {
    const tokenizer = load("qwen");
    expect(() => tokenizer.decode([703])).toThrow("[tokenizer] expected ids of 0 … 702, got 703");
    expect(tokenizer.pieceOf(tokenizer.idOf("<|user|>") ?? -1)).toBe("<|user|>");
    expect(tokenizer.idOf("no such piece")).toBeUndefined();
  });
});
