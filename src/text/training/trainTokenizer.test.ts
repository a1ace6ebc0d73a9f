import fc from "fast-check";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  fixtureSpecialTokens,
  fixtureTrainingTexts,
  fixtureVocabSize,
} from "../../../test/fixtures/tokenizer/training.ts";
import { RandomStream } from "../../base/index.ts";
import { fileOf } from "../bpe/tokenizerFile.ts";
import { MergeLearner } from "./mergeLearner.ts";
import { TextSample } from "./textSample.ts";
import { type TokenizerTrainingOptions, type TrainingProgress, trainTokenizer } from "./trainTokenizer.ts";

const fixtureOptions: TokenizerTrainingOptions = {
  texts: fixtureTrainingTexts,
  vocabSize: fixtureVocabSize,
  specialTokens: fixtureSpecialTokens,
};

describe("trainTokenizer", () => {
  it("makes the tokenizer of the fixture again, whatever the order of the texts", async () => {
    const path = join(import.meta.dirname, "../../../test/fixtures/tokenizer/tokenizer.json");
    const saved: unknown = JSON.parse(readFileSync(path, "utf8"));
    async function* backwards(): AsyncGenerator<string> {
      yield* fixtureTrainingTexts.toReversed();
    }
    for (const texts of [fixtureTrainingTexts, backwards()]) {
      const tokenizer = await trainTokenizer({ ...fixtureOptions, texts });
      expect(JSON.parse(JSON.stringify(fileOf(tokenizer.definition)))).toEqual(saved);
    }
  });

  it("never makes a special token or a byte piece out of text", async () => {
    const texts = Array.from({ length: 200 }, () => "hello hello <pad> helper <0x41>");
    const tokenizer = await trainTokenizer({ texts, vocabSize: 400, specialTokens: ["hello", " he"] });
    expect([...tokenizer.encode("hello he")].some((id) => id < 6)).toBe(false);
    expect(tokenizer.decode(tokenizer.encode("hello he"))).toBe("hello he");
    expect([...tokenizer.encode("hello", { specialTokens: "parse" })]).toEqual([tokenizer.idOf("hello")]);
  });

  it("gives fewer pieces when the texts have no more pairs that repeat, and spells rare characters in bytes", async () => {
    const tokenizer = await trainTokenizer({
      texts: ["abab abab", `${"ab ".repeat(5000)}ж`],
      vocabSize: 4096,
      maxPieceCharacters: 3,
    });
    expect(tokenizer.vocabSize).toBeLessThan(300);
    expect(
      Math.max(...tokenizer.definition.pieces.slice(260).map((piece) => piece.length)),
    ).toBeLessThanOrEqual(3);
    expect([...tokenizer.encode("ж")].map((id) => tokenizer.pieceOf(id))).toEqual(["<0xD0>", "<0xB6>"]);
  });

  it("reports its phases in order and stops when told to", async () => {
    const phases: TrainingProgress["phase"][] = [];
    const { vocabSize } = await trainTokenizer({
      ...fixtureOptions,
      onProgress: ({ phase }) => phases.push(phase),
    });
    expect(vocabSize).toBe(fixtureVocabSize);
    expect(phases.filter((phase, i) => phase !== "count" && phase !== phases[i - 1])).toEqual([
      "read",
      "merge",
    ]);

    const abort = new AbortController();
    function* endless(): Generator<string> {
      for (let i = 0; ; i++) yield `text number ${i} `.repeat(100);
    }
    const training = trainTokenizer({
      texts: endless(),
      vocabSize: 1000,
      sampleBytes: 1e5,
      onProgress: () => abort.abort(new RangeError("enough")),
      signal: abort.signal,
    });
    await expect(training).rejects.toThrow("enough");
  });

  it.each<[name: string, options: Partial<TokenizerTrainingOptions>, message: string]>([
    ["no text", { texts: [] }, "expected text to train a tokenizer from, got none (are the files empty?)"],
    ["empty texts", { texts: ["", ""] }, "got none (are the files empty?)"],
    ["a sample smaller than any text", { sampleBytes: 10 }, "got none (raise sampleBytes)"],
    [
      "no room",
      { vocabSize: 262 },
      "expected vocabSize of 263 (bytes, special tokens and one character) to 1048576, got 262",
    ],
    ["no number", { vocabSize: Number.NaN }, "got NaN"],
    ["no sample", { sampleBytes: 0 }, "expected sampleBytes of at least 1, got 0"],
    ["no coverage", { characterCoverage: 0 }, "expected characterCoverage above 0 and at most 1, got 0"],
    ["no length", { maxPieceCharacters: 0 }, "expected maxPieceCharacters of at least 1, got 0"],
    [
      "a special token twice",
      { specialTokens: ["</s>"] },
      'special tokens named once (the first four are built in), got "</s>"',
    ],
    ["a special byte", { specialTokens: ["<0x41>"] }, 'not spelt like a byte piece, got "<0x41>"'],
    ["a special character", { specialTokens: ["§"] }, 'special tokens of two characters or more, got "§"'],
    ["an empty special token", { specialTokens: [""] }, 'special tokens of two characters or more, got ""'],
  ])("refuses %s", async (_, options, message) => {
    await expect(trainTokenizer({ ...fixtureOptions, ...options })).rejects.toThrow(message);
  });
});

/** The algorithm as published: count all pairs anew before every merge. */
function learnPlainly(
  words: readonly [symbols: number[], count: number][],
  pieces: string[],
  numMerges: number,
): string[] {
  const merges: string[] = [];
  const current = words.map(([symbols, count]) => ({ symbols: [...symbols], count }));
  while (merges.length < numMerges) {
    const counts = new Map<string, { left: number; right: number; count: number }>();
    for (const { symbols, count } of current) {
      for (let i = 0; i + 1 < symbols.length; i++) {
        const [left, right] = [symbols[i], symbols[i + 1]];
        const key = `${left},${right}`;
        counts.set(key, { left, right, count: (counts.get(key)?.count ?? 0) + count });
      }
    }
    const [best] = [...counts.values()].sort(
      (a, b) => b.count - a.count || a.left - b.left || a.right - b.right,
    );
    if (best === undefined || best.count < 2) break;
    const text = pieces[best.left] + pieces[best.right];
    if (!pieces.includes(text)) pieces.push(text);
    const merged = pieces.indexOf(text);
    merges.push(`${best.left},${best.right},${merged}`);
    for (const word of current) {
      for (let i = 0; i + 1 < word.symbols.length; i++) {
        if (word.symbols[i] === best.left && word.symbols[i + 1] === best.right)
          word.symbols.splice(i, 2, merged);
      }
    }
  }
  return merges;
}

describe("MergeLearner", () => {
  it("learns what counting everything anew for each merge learns", () => {
    const word = fc.tuple(
      fc.array(fc.nat(2), { minLength: 2, maxLength: 14 }),
      fc.integer({ min: 1, max: 5 }),
    );
    fc.assert(
      fc.property(fc.array(word, { minLength: 1, maxLength: 12 }), (words) => {
        const starts = [0];
        for (const [symbols] of words) starts.push(starts[starts.length - 1] + symbols.length);
        const pieces = ["a", "b", "c"];
        const learner = new MergeLearner(
          {
            symbols: Int32Array.from(words.flatMap(([symbols]) => symbols)),
            starts: Int32Array.from(starts),
            counts: Float64Array.from(words, ([, count]) => count),
          },
          { pieces, forbidden: new Set(), maxPieceCharacters: 100, minCount: 2 },
        );
        while (learner.merges.length < 30 && learner.learnNext());
        const plainPieces = ["a", "b", "c"];
        const plain = learnPlainly(words, plainPieces, 30);
        expect(learner.merges.map(({ left, right, merged }) => `${left},${right},${merged}`)).toEqual(plain);
        expect(pieces).toEqual(plainPieces);
      }),
      { numRuns: 300 },
    );
  });
});

describe("TextSample", () => {
  it("keeps the same texts in any order, within its limit, and nearly fills it", () => {
    const random = new RandomStream(5);
    const texts = Array.from({ length: 500 }, (_, i) => `${i} `.repeat(1 + random.nextInt(300)));
    const sampleOf = (list: readonly string[]): string[] => {
      const sample = new TextSample(100_000);
      for (const text of list) sample.add(text);
      expect(sample.keptBytes).toBeLessThanOrEqual(100_000);
      expect(sample.keptBytes).toBeGreaterThan(95_000);
      return [...sample].map((bytes) => Buffer.from(bytes).toString("utf8")).sort();
    };
    const kept = sampleOf(texts);
    expect(sampleOf(texts.toReversed())).toEqual(kept);
    expect(sampleOf(texts.toSorted())).toEqual(kept);
    // Every tenth of the list has its share.
    for (let tenth = 0; tenth < 10; tenth++) {
      expect(
        kept.filter((text) => Math.floor(Number.parseInt(text, 10) / 50) === tenth).length,
      ).toBeGreaterThan(5);
    }
  });

  it("cuts long texts at line ends, never inside a character, and loses nothing", () => {
    const text = `${"line of text\n".repeat(9000)}${"😀".repeat(70_000)}x`;
    const sample = new TextSample(Infinity);
    sample.add(text);
    const parts = [...sample].map((bytes) => Buffer.from(bytes).toString("utf8"));
    expect(parts.length).toBeGreaterThan(3);
    expect(parts.join("")).not.toContain("\ufffd");
    expect(parts.reduce((sum, part) => sum + part.length, 0)).toBe(text.length);
    expect(sample.keptBytes).toBe(Buffer.byteLength(text));
  });
});
