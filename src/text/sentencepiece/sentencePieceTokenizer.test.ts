import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { parseModel } from "./modelFile.ts";
import { SentencePieceTokenizer } from "./sentencePieceTokenizer.ts";

const folder = join(import.meta.dirname, "../../../test/fixtures/sentencepiece");
const readFixture = (name: string): unknown => JSON.parse(readFileSync(join(folder, name), "utf8"));
const rows = z.array(z.array(z.int()));
const fixtureSchema = z.object({
  special: z.tuple([z.int(), z.int(), z.int(), z.int()]),
  ids: rows,
  decoded: z.array(z.string()),
  drawn: rows,
  drawnDecoded: z.array(z.string()),
  longDigest: z.string(),
});
const texts = z
  .array(z.string())
  .parse(readFixture("texts.json"))
  .map((text) => Buffer.from(text, "base64"));
const names = readdirSync(folder).flatMap((file) => /^(.*)\.model(\.gz)?$/.exec(file)?.[1] ?? []);

function load(name: string): SentencePieceTokenizer {
  const file = readdirSync(folder).find((f) => f.startsWith(`${name}.model`)) ?? "";
  const content = readFileSync(join(folder, file));
  return new SentencePieceTokenizer(parseModel(file.endsWith(".gz") ? gunzipSync(content) : content, file));
}

describe.each(names)("the C++ library and %s", (name) => {
  const tokenizer = load(name);
  const expected = fixtureSchema.parse(readFixture(`${name}.json`));

  it("give the same ids for every text", () => {
    expect(expected.ids.length).toBe(texts.length);
    texts.forEach((text, i) => {
      expect([...tokenizer.encodeBytes(text)], JSON.stringify(text.toString())).toEqual(expected.ids[i]);
    });
    // Again, with what the first time left in memory.
    texts.forEach((text, i) => expect([...tokenizer.encodeBytes(text)]).toEqual(expected.ids[i]));
  });

  it("give the same ids for a long text, where sums of scores are rounded", () => {
    const space = Buffer.from(" ");
    const parts = Array.from({ length: 16 }, () => texts)
      .flat()
      .flatMap((text, i) => (i === 0 ? [text] : [space, text]));
    const ids = [...tokenizer.encodeBytes(Buffer.concat(parts))].join(",");
    expect(createHash("sha256").update(ids).digest("hex")).toBe(expected.longDigest);
  });

  it("give the same text for these ids and for ids drawn at random", () => {
    const all = [...expected.ids, ...expected.drawn];
    const allDecoded = [...expected.decoded, ...expected.drawnDecoded];
    all.forEach((ids, i) => expect(tokenizer.decode(ids), JSON.stringify(ids)).toBe(allDecoded[i]));
  });

  it("decode piece by piece to the same text, whole characters only", () => {
    const decoder = tokenizer.createDecoder();
    [...expected.ids, ...expected.drawn].forEach((ids) => {
      const parts = ids.map((id) => decoder.push(id));
      expect(parts.every((part) => part.isWellFormed())).toBe(true);
      expect(parts.join("") + decoder.flush()).toBe(tokenizer.decode(ids));
    });
  });

  it("name the same special ids", () => {
    const { padId, unkId, bosId, eosId } = tokenizer;
    expect([padId ?? -1, unkId, bosId ?? -1, eosId]).toEqual(expected.special);
  });
});

describe("SentencePieceTokenizer", () => {
  const nemotron = load("bpe-nemotron");
  const llama = load("bpe-llama");

  it("adds nothing to a text and reads control pieces as text, unless asked", () => {
    expect([...nemotron.encode("")]).toEqual([]);
    expect(nemotron.encode("<s>a</s>")).not.toContain(nemotron.eosId);
    const parsed = nemotron.encode("<s>a</s> b<s", { specialTokens: "parse" });
    expect([parsed[0], parsed.indexOf(nemotron.eosId)]).toEqual([nemotron.bosId, 2]);
    expect(nemotron.decode(parsed)).toBe("a b<s");
    expect(nemotron.decode(parsed, { specialTokens: "show" })).toBe("<s>a</s> b<s");
  });

  it("finds user-defined pieces in any text, and shows them", () => {
    const ids = nemotron.encode("<extra_id_1>User\n");
    expect(ids[0]).toBe(nemotron.idOf("<extra_id_1>"));
    expect(nemotron.specialTokens.has("<extra_id_1>")).toBe(false);
    expect(nemotron.decode(ids)).toBe("<extra_id_1>User\n");
  });

  it("puts a space before a text once, and keeps the first space of a text that goes on", () => {
    const [first] = llama.encode("the ship");
    expect(llama.pieceOf(first).startsWith("▁")).toBe(true);
    const parsed = llama.encode("the</s>the", { specialTokens: "parse" });
    expect(llama.decode(parsed, { specialTokens: "show" })).toBe("the</s>the");
    const ship = llama.encode("ship");
    expect(llama.decode(ship)).toBe("ship");
    expect(llama.decode(ship, { startsText: false })).toBe(" ship");
    expect(Buffer.from(llama.decodeBytes(ship, { startsText: false })).toString()).toBe(" ship");
    const decoder = llama.createDecoder({ startsText: false });
    expect(decoder.push(ship) + decoder.flush()).toBe(" ship");
  });

  it("gives any text back where nothing is normalised and bytes are fallen back on", () => {
    const anyText = fc.array(
      fc.oneof(
        fc.constantFrom(" ", "\n", "the ship", "<extra_id_1>"),
        fc.string({ unit: "binary", maxLength: 6 }),
      ),
      { maxLength: 12 },
    );
    fc.assert(
      fc.property(anyText, (parts) => {
        // "▁" stands for a space and comes back as one.
        const text = parts.join("").toWellFormed().replaceAll("\u2581", "_");
        for (const tokenizer of [nemotron, llama, load("unigram-bytes")]) {
          expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
          expect(Buffer.from(tokenizer.decodeBytes(tokenizer.encode(text)))).toEqual(Buffer.from(text));
        }
      }),
      { numRuns: 100 },
    );
  });

  it("gives bytes of broken characters one by one, as they are", () => {
    const ids = [0xe2, 0x82, 0x41, 0xff].map(
      (byte) => nemotron.idOf(`<0x${byte.toString(16).toUpperCase()}>`) ?? -1,
    );
    expect([...nemotron.decodeBytes(ids)]).toEqual([0xe2, 0x82, 0x41, 0xff]);
    expect(nemotron.decode(ids)).toBe("\ufffd\ufffdA\ufffd");
  });

  it("refuses ids that do not exist", () => {
    const sentence = "[tokenizer] expected ids of 0 … 899, got 900 (are these ids of another tokenizer?)";
    expect(() => nemotron.decode([900])).toThrow(sentence);
    expect(() => nemotron.decodeBytes([-1])).toThrow("got -1");
    expect(() => nemotron.createDecoder().push(1.5)).toThrow("got 1.5");
    expect(() => nemotron.pieceOf(900)).toThrow(sentence);
    expect(nemotron.idOf("no such piece")).toBeUndefined();
  });

  it("encodes megabytes without a space, and with many words, in linear time", () => {
    for (const tokenizer of [nemotron, load("unigram-bytes")]) {
      const text = "abcdefgh".repeat(1 << 15);
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
      const mixed = Array.from({ length: 40_000 }, (_, i) => `w${i.toString(36)}`).join(" ");
      expect(tokenizer.decode(tokenizer.encode(mixed))).toBe(mixed);
    }
  });
});
