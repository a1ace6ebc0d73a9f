import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TokenizerError } from "../../base/index.ts";
import { parseModel } from "./modelFile.ts";
import { SentencePieceTokenizer } from "./sentencePieceTokenizer.ts";

const folder = join(import.meta.dirname, "../../../test/fixtures/sentencepiece");
const model = readFileSync(join(folder, "bpe-rules.model"));

/** A length-delimited field, written by hand from the encoding's description. */
function field(number: number, content: Uint8Array | string | number): Buffer {
  if (typeof content === "number") return Buffer.from([...varint(number * 8), ...varint(content)]);
  const bytes = Buffer.from(content);
  return Buffer.concat([Buffer.from([...varint(number * 8 + 2), ...varint(bytes.length)]), bytes]);
}

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) + 128, ...varint(Math.floor(value / 128))];
}

const piece = (text: string, type = 1): Buffer =>
  field(1, Buffer.concat([field(1, text), Buffer.from([0x15, 0, 0, 0x80, 0xbf]), field(3, type)]));
const basics = [piece("<unk>", 2), piece("<s>", 3), piece("</s>", 3)];
const parse = (...parts: Buffer[]) => parseModel(Buffer.concat(parts), "x.model");

describe("parseModel", () => {
  it("reads pieces, settings and defaults", () => {
    const trainer = field(2, Buffer.concat([field(3, 2), field(35, 0), field(44, "?"), field(47, "</s>")]));
    const parsed = parse(...basics, piece("ab"), trainer, field(3, field(3, 0)), field(1000, 7));
    expect(parsed.pieces).toEqual(["<unk>", "<s>", "</s>", "ab"]);
    expect([...parsed.scores]).toEqual([-1, -1, -1, -1]);
    expect([...parsed.types]).toEqual([2, 3, 3, 1]);
    expect(parsed).toMatchObject({
      type: 2,
      unkId: 0,
      unkSurface: "?",
      bosPiece: "<s>",
      hasByteFallback: false,
    });
    expect(parsed.normalizer).toMatchObject({
      addDummyPrefix: false,
      removeExtraWhitespaces: true,
      escapeWhitespaces: true,
    });
  });

  it.each<[name: string, parts: Buffer[], message: RegExp]>([
    ["an empty file", [], /got no pieces/],
    ["text", [Buffer.from('{"model": 1}')], /got bytes that are no such message/],
    ["a cut file", [model.subarray(0, 5000)], /no such message/],
    ["an empty piece", [...basics, piece("")], /expected a text for piece 3, got none/],
    ["a piece of no type", [...basics, piece("a", 9)], /a type from 1 to 6 for piece 3, got 9/],
    ["a piece twice", [...basics, piece("a"), piece("a")], /every piece once, got "a" again with id 4/],
    ["no unknown piece", [piece("a")], /an unknown piece, got none/],
    ["two unknown pieces", [...basics, piece("<unk2>", 2)], /one unknown piece, got ids 0 and 3/],
    ["bytes without fallback", [...basics, piece("<0x00>", 6)], /only with trainer_spec\.byte_fallback/],
    ["a byte of no value", [...basics, piece("<0xG0>", 6)], /a byte piece such as "<0x0A>"/],
    ["missing bytes", [...basics, field(2, field(35, 1))], /a piece for every byte, got none for 0/],
    ["another kind of model", [...basics, field(2, field(3, 7))], /got 7/],
    ["a denormaliser", [...basics, field(5, field(2, "rules"))], /without denormaliser/],
  ])("refuses %s", (_, parts, message) => {
    expect(() => parse(...parts)).toThrow(message);
  });

  it("refuses rules larger than their bytes, and a model that ends no document", () => {
    const rules = field(3, field(2, Buffer.from([255, 255, 0, 0, 1, 2, 3, 4])));
    expect(() => new SentencePieceTokenizer(parse(...basics, rules))).toThrow(/a trie inside the 8 bytes/);
    expect(() => new SentencePieceTokenizer(parse(basics[0]))).toThrow(/a control piece '<\/s>'/);
  });

  it("ends on any damage in a tokenizer or in a sentence", () => {
    const text = "The ship A\u0301 SS\u00a0… 🙂 sails";
    let numRead = 0;
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(model.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        fc.integer({ min: model.length - 600, max: model.length }),
        (changes, length) => {
          const damaged = Buffer.from(model.subarray(0, length));
          for (const [at, byte] of changes) damaged[at] = byte;
          try {
            const tokenizer = new SentencePieceTokenizer(parseModel(damaged, "damaged.model"));
            expect(tokenizer.decode(tokenizer.encode(text)).length).toBeLessThan(1e6);
            numRead++;
          } catch (error) {
            if (!(error instanceof TokenizerError)) throw error;
          }
        },
      ),
      // A fixed seed: whether some damaged models are still readable must not depend on chance.
      { numRuns: 300, seed: 11 },
    );
    expect(numRead).toBeGreaterThan(0);
  });
});
