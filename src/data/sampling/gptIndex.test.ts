import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { samplingFixture } from "../../../test/data/scratch.ts";
import { buildGptIndex, type GptIndex, planEpochs } from "./gptIndex.ts";

const fixture = samplingFixture().gptIndex;

function digest(array: Int32Array | Uint32Array): string {
  return createHash("sha256").update(array).digest("hex");
}

/** The tokens of row j as (entry of the document index, offset) pairs, S + 1 of them. */
function rowTokens(index: GptIndex, lengths: Int32Array, row: number, sequenceLength: number): number[] {
  const tokens: number[] = [];
  let entry = index.sampleIndex[2 * row];
  let offset = index.sampleIndex[2 * row + 1];
  while (tokens.length <= sequenceLength && entry < index.documentIndex.length) {
    if (offset < lengths[index.documentIndex[entry]]) tokens.push(entry * 1000 + offset++);
    else {
      entry++;
      offset = 0;
    }
  }
  return tokens;
}

const configurations = fc.record({
  lengths: fc.array(fc.integer({ min: 0, max: 20 }), { minLength: 1, maxLength: 12 }),
  sequenceLength: fc.integer({ min: 1, max: 9 }),
  numSamples: fc.option(fc.integer({ min: 1, max: 120 }), { nil: undefined }),
  seed: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
});

describe("buildGptIndex", () => {
  it("gives the indices that numpy gives", () => {
    for (const expected of fixture.small) {
      const { lengths, begin, end, sequenceLength, numSamples, seed } = expected;
      const index = buildGptIndex({
        lengths: Int32Array.from(lengths),
        documents: { begin, end },
        sequenceLength,
        numSamples: numSamples ?? undefined,
        seed,
      });
      expect(index.numEpochs).toBe(expected.numEpochs);
      expect([...index.documentIndex]).toEqual(expected.documentIndex);
      expect([...index.sampleIndex]).toEqual(expected.sampleIndex);
      expect([...index.shuffleIndex]).toEqual(expected.shuffleIndex);
    }
  });

  it("gives them for many documents and epochs, shuffled together and apart", () => {
    const { lengths, begin, end, sequenceLength, seed, cases } = fixture.large;
    for (const expected of cases) {
      const index = buildGptIndex({
        lengths: Int32Array.from(lengths),
        documents: { begin, end },
        sequenceLength,
        numSamples: expected.numSamples ?? undefined,
        seed,
      });
      expect(index).toMatchObject({ numEpochs: expected.numEpochs, numSamples: expected.numBuilt });
      expect(
        planEpochs(index.numTokensPerEpoch, sequenceLength, expected.numSamples ?? undefined),
      ).toMatchObject({
        separateLastEpoch: expected.separateLastEpoch,
      });
      expect(digest(index.documentIndex)).toBe(expected.documentIndex);
      expect(digest(index.sampleIndex)).toBe(expected.sampleIndex);
      expect(digest(index.shuffleIndex)).toBe(expected.shuffleIndex);
    }
  });

  it("uses each token of every epoch once as an input, in samples of S + 1 tokens", () => {
    fc.assert(
      fc.property(configurations, ({ lengths: list, sequenceLength, numSamples, seed }) => {
        const lengths = Int32Array.from(list);
        const numTokens = list.reduce((sum, length) => sum + length, 0);
        fc.pre(numTokens >= (numSamples === undefined ? sequenceLength + 1 : 2));
        const documents = { begin: 0, end: lengths.length };
        const index = buildGptIndex({ lengths, documents, sequenceLength, numSamples, seed });
        if (numSamples !== undefined) expect(index.numSamples).toBeGreaterThanOrEqual(numSamples);
        // Every document stands once per epoch in the document index.
        const uses = Array.from(lengths, () => 0);
        for (const document of index.documentIndex) uses[document]++;
        expect(uses.every((count) => count === index.numEpochs)).toBe(true);
        // The inputs of all samples, in row order, are the tokens end to end; each row overlaps the next by one.
        const inputs: number[] = [];
        let last: number | undefined;
        for (let row = 0; row < index.numSamples; row++) {
          const tokens = rowTokens(index, lengths, row, sequenceLength);
          expect(tokens).toHaveLength(sequenceLength + 1);
          if (last !== undefined) expect(tokens[0]).toBe(last);
          inputs.push(...tokens.slice(0, -1));
          last = tokens.at(-1);
        }
        const all = [...index.documentIndex].flatMap((document, entry) =>
          Array.from({ length: lengths[document] }, (_, offset) => entry * 1000 + offset),
        );
        expect(inputs).toEqual(all.slice(0, inputs.length));
        expect(all.length - inputs.length).toBeLessThanOrEqual(sequenceLength);
        // Every row is drawn once.
        expect([...index.shuffleIndex].sort((a, b) => a - b)).toEqual([...Array(index.numSamples).keys()]);
      }),
    );
  });

  it("is a function of its arguments", () => {
    fc.assert(
      fc.property(configurations, ({ lengths, sequenceLength, seed }) => {
        fc.pre(lengths.reduce((sum, length) => sum + length, 0) > sequenceLength);
        const options = {
          lengths: Int32Array.from(lengths),
          documents: { begin: 0, end: lengths.length },
          sequenceLength,
          seed,
        };
        expect(buildGptIndex(options)).toEqual(buildGptIndex(options));
      }),
    );
  });

  it("keeps order and a partial last sample when asked to", () => {
    const index = buildGptIndex({
      lengths: Int32Array.from([3, 0, 4, 0]),
      documents: { begin: 0, end: 4 },
      sequenceLength: 4,
      seed: 0,
      shuffle: false,
      dropLastPartial: false,
    });
    expect([...index.documentIndex]).toEqual([0, 1, 2, 3]);
    expect([...index.sampleIndex].slice(0, 4)).toEqual([0, 0, 2, 1]);
    expect(index.numSamples).toBe(2);
  });

  it("refuses what cannot be sampled", () => {
    const base = { lengths: Int32Array.from([5, 5]), documents: { begin: 0, end: 2 }, seed: 0 };
    expect(() => buildGptIndex({ ...base, sequenceLength: 10 })).toThrow("expected at least 11 tokens");
    expect(() => buildGptIndex({ ...base, sequenceLength: 0 })).toThrow(
      "sequenceLength: expected a whole number",
    );
    expect(() => buildGptIndex({ ...base, sequenceLength: 4, numSamples: 0.5 })).toThrow("numSamples");
    expect(() => buildGptIndex({ ...base, documents: { begin: 2, end: 2 }, sequenceLength: 1 })).toThrow(
      "got 0 in 0 documents",
    );
    expect(() => buildGptIndex({ ...base, sequenceLength: 4, numSamples: 2 ** 32 - 2 })).toThrow(
      "expected fewer than 2^32",
    );
  });
});
