import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Tokenizer as OfficialTokenizer } from "@huggingface/tokenizers";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { loadTokenizer } from "../loadTokenizer.ts";

const folder = join(import.meta.dirname, "../../../test/fixtures/tokenizer");
const readFixture = (name: string): unknown => JSON.parse(readFileSync(join(folder, name), "utf8"));
const ids = z.array(z.int());
const texts = z.array(z.string()).parse(readFixture("texts.json"));
const expected = z
  .array(z.object({ asText: ids, parsed: ids, decoded: z.string() }))
  .parse(readFixture("expected.json"));
const tokenizer = loadTokenizer(folder);

/** Text with everything that goes wrong in tokenizers, lone surrogates left out. */
const part = fc.oneof(
  fc.constantFrom(
    " ",
    "   ",
    "\n",
    "\r\n",
    "\t",
    "\u3000",
    "</s>",
    "<s>",
    "<0x41>",
    "the",
    " ship",
    "日本語",
    "😀",
  ),
  fc.string({ unit: "binary", maxLength: 6 }).map((text) => text.toWellFormed()),
  fc.string({ unit: "grapheme", maxLength: 6 }),
);
const anyText = fc.array(part, { maxLength: 20 }).map((parts) => parts.join(""));

describe("BpeTokenizer and Hugging Face's library", () => {
  it("give the same ids for every text of the fixture", () => {
    expect(expected.length).toBe(texts.length);
    texts.forEach((text, i) => {
      expect([...tokenizer.encode(text)], JSON.stringify(text)).toEqual(expected[i].asText);
      expect([...tokenizer.encode(text, { specialTokens: "parse" })]).toEqual(expected[i].parsed);
    });
  });

  it("give the same text for the ids of the fixture", () => {
    for (const { parsed, decoded } of expected)
      expect(tokenizer.decode(parsed, { specialTokens: "show" })).toBe(decoded);
  });

  it("give the same ids for any text (against its JavaScript edition)", () => {
    const official = new OfficialTokenizer(readFixture("tokenizer.json") ?? {}, {});
    fc.assert(
      fc.property(anyText, (text) => {
        expect([...tokenizer.encode(text, { specialTokens: "parse" })]).toEqual(official.encode(text).ids);
      }),
      { numRuns: 1000 },
    );
  });
});

describe("BpeTokenizer", () => {
  it("gives any text back, byte for byte, in both readings of special tokens", () => {
    fc.assert(
      fc.property(anyText, fc.constantFrom("text", "parse"), (text, specialTokens) => {
        const encoded = tokenizer.encode(text, { specialTokens });
        expect(tokenizer.decode(encoded, { specialTokens: "show" })).toBe(text);
        expect(Buffer.from(tokenizer.decodeBytes(encoded, { specialTokens: "show" }))).toEqual(
          Buffer.from(text),
        );
      }),
      { numRuns: 1000 },
    );
  });

  it("reads a lone surrogate as U+FFFD", () => {
    expect(tokenizer.decode(tokenizer.encode("a\ud800b\udc00"))).toBe("a\ufffdb\ufffd");
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0xd700, max: 0xe100 })), (units) => {
        const text = String.fromCharCode(...units);
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text.toWellFormed());
      }),
    );
  });

  it("gives any bytes back, and for UTF-8 the ids of the text", () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 60 }),
      fc
        .array(
          fc.oneof(
            fc.uint8Array({ maxLength: 3 }),
            part.map((text) => Buffer.from(text)),
          ),
        )
        .map((parts) => Buffer.concat(parts)),
    );
    fc.assert(
      fc.property(bytes, (bytes) => {
        expect(Buffer.from(tokenizer.decodeBytes(tokenizer.encodeBytes(bytes)))).toEqual(Buffer.from(bytes));
      }),
      { numRuns: 1000 },
    );
    for (const text of texts) {
      expect(tokenizer.encodeBytes(Buffer.from(text))).toEqual(tokenizer.encode(text));
    }
  });

  it("spells broken UTF-8 in byte pieces and reads on after it", () => {
    const pieces = (...bytes: number[]): string[] =>
      [...tokenizer.encodeBytes(Uint8Array.from(bytes))].map((id) => tokenizer.pieceOf(id));
    // A cut character, an overlong form, a surrogate, a code point too high, a stray continuation.
    expect(pieces(0x61, 0xe2, 0x82)).toEqual(["a", "<0xE2>", "<0x82>"]);
    expect(pieces(0xc0, 0xaf, 0x61)).toEqual(["<0xC0>", "<0xAF>", "a"]);
    expect(pieces(0xed, 0xa0, 0x80)).toEqual(["<0xED>", "<0xA0>", "<0x80>"]);
    expect(pieces(0xf4, 0x90, 0x80, 0x80)).toEqual(["<0xF4>", "<0x90>", "<0x80>", "<0x80>"]);
    expect(pieces(0x80, 0x62)).toEqual(["<0x80>", "b"]);
  });

  it("keeps to Nemotron's ids and adds none of them unasked", () => {
    const { padId, unkId, bosId, eosId } = tokenizer;
    expect([padId, unkId, bosId, eosId]).toEqual([0, 1, 2, 3]);
    expect(tokenizer.specialTokens.get("<|end|>")).toBe(5);
    expect([...tokenizer.encode("")]).toEqual([]);
    expect(tokenizer.encode("</s>")).not.toContain(eosId);
    expect([...tokenizer.encode("</s>", { specialTokens: "parse" })]).toEqual([eosId]);
    expect(tokenizer.decode([2, ...tokenizer.encode("ship"), 3])).toBe("ship");
    expect(tokenizer.decode([2, ...tokenizer.encode("ship"), 3], { specialTokens: "show" })).toBe(
      "<s>ship</s>",
    );
  });

  it("splits digits and keeps indentation together", () => {
    const pieces = (text: string): string[] => [...tokenizer.encode(text)].map((id) => tokenizer.pieceOf(id));
    expect(pieces("2022")).toEqual(["2", "0", "2", "2"]);
    expect(pieces("        return")).toEqual(["       ", " return"]);
  });

  it("gives the same ids whatever was encoded before, also when its memory is full", () => {
    const fresh = loadTokenizer(folder);
    const before = texts.map((text) => fresh.encode(text));
    for (let i = 0; i < 40_000; i++)
      fresh.encode(` w${i.toString(36).replace(/\d/g, "x")}${String.fromCodePoint(0x4e00 + i)}`);
    expect(texts.map((text) => fresh.encode(text))).toEqual(before);
  });

  it("encodes a text of megabytes without a space in linear time", () => {
    const text = "abcdefgh".repeat(1 << 17);
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    const mixed = "船は嵐 the ship\n".repeat(40_000);
    expect(tokenizer.decode(tokenizer.encode(mixed))).toBe(mixed);
  });

  it("refuses ids that do not exist", () => {
    const sentence = "[tokenizer] expected ids of 0 … 1023, got 1024 (are these ids of another tokenizer?)";
    expect(() => tokenizer.decode([1024])).toThrow(sentence);
    expect(() => tokenizer.decode([-1])).toThrow("got -1");
    expect(() => tokenizer.decodeBytes([1.5])).toThrow("got 1.5");
    expect(() => tokenizer.pieceOf(1024)).toThrow(sentence);
    expect(tokenizer.idOf("no such piece")).toBeUndefined();
  });
});

describe("createDecoder", () => {
  it("gives whole characters only, and all of them", () => {
    fc.assert(
      fc.property(anyText, (text) => {
        const decoder = tokenizer.createDecoder();
        const parts = Array.from(tokenizer.encode(text), (id) => decoder.push(id));
        for (const part of parts) expect(part.isWellFormed()).toBe(true);
        if (!text.includes("\ufffd")) expect(parts.join("")).not.toContain("\ufffd");
        expect(parts.join("") + decoder.flush()).toBe(text);
      }),
      { numRuns: 500 },
    );
  });

  it("agrees with decode on ids in any order", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: tokenizer.vocabSize - 1 }), { maxLength: 40 }),
        (ids) => {
          const decoder = tokenizer.createDecoder({ specialTokens: "show" });
          const text = ids.map((id) => decoder.push(id)).join("") + decoder.flush();
          expect(text).toBe(tokenizer.decode(ids, { specialTokens: "show" }));
        },
      ),
      { numRuns: 500 },
    );
  });

  it("holds an unfinished character back until flush, and starts anew", () => {
    const bytes = [...tokenizer.encodeBytes(Buffer.from("\ufeff𐍈"))];
    const decoder = tokenizer.createDecoder();
    expect(decoder.push(bytes.slice(0, -1))).toBe("\ufeff");
    expect(decoder.flush()).toBe("\ufffd");
    expect(decoder.push(bytes)).toBe("\ufeff𐍈");
  });
});
