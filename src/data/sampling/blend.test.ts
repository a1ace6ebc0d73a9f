import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { samplingFixture } from "../../../test/data/scratch.ts";
import {
  BlendedDataset,
  blendSizes,
  buildBlendIndex,
  buildExhaustiveBlendIndex,
  checkWeights,
} from "./blend.ts";
import { normalizeWeights } from "./numpySum.ts";
import type { TokenDataset } from "./tokenDataset.ts";

const fixture = samplingFixture().blends;

describe("weighted blends", () => {
  it("have the sizes and turns that numpy and the greedy rule give", () => {
    for (const expected of fixture.weighted) {
      const normalized = normalizeWeights(expected.weights);
      expect(normalized).toEqual(expected.normalized);
      expect(blendSizes(expected.weights, expected.numSamples)).toEqual({
        planned: expected.planned,
        built: expected.built,
      });
      const index = buildBlendIndex(normalizeWeights(normalized), expected.datasetIndex.length);
      expect([...index.datasetIndex]).toEqual(expected.datasetIndex);
      expect([...index.datasetSampleIndex]).toEqual(expected.datasetSampleIndex);
    }
  });

  it("give all samples of all members where no number is asked for", () => {
    for (const { sizes, datasetIndex } of fixture.exhaustive) {
      expect([...buildExhaustiveBlendIndex(sizes).datasetIndex]).toEqual(datasetIndex);
    }
  });

  it("stay within one sample of their shares at every step", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 1, maxLength: 5 }),
        fc.integer({ min: 1, max: 200 }),
        (raw, size) => {
          const weights = normalizeWeights(raw);
          const { datasetIndex } = buildBlendIndex(weights, size);
          const counts = weights.map(() => 0);
          datasetIndex.forEach((member, step) => {
            counts[member]++;
            weights.forEach((weight, i) => expect(counts[i]).toBeLessThan(weight * (step + 1) + 1.0001));
          });
        },
      ),
    );
  });

  it("refuse impossible weights", () => {
    for (const weights of [[], [0, 0], [-1, 2], [Number.NaN]]) {
      expect(() => checkWeights(weights)).toThrow("expected blend weights of 0 or more");
    }
  });
});

describe("BlendedDataset", () => {
  const member = (id: number, numSamples: number): TokenDataset => ({
    sequenceLength: 1,
    numSamples,
    fingerprint: String(id),
    readSample: (index, out, at = 0) => out.set([id, index], at),
  });

  it("reads each sample from its member", () => {
    const dataset = new BlendedDataset([member(7, 3), member(8, 1)], buildExhaustiveBlendIndex([3, 1]));
    const out = new Int32Array(2);
    const read = Array.from({ length: dataset.numSamples }, (_, i) => {
      dataset.readSample(i, out);
      return [...out];
    });
    expect(read.toSorted((a, b) => a[0] - b[0] || a[1] - b[1])).toEqual([
      [7, 0],
      [7, 1],
      [7, 2],
      [8, 0],
    ]);
  });

  it("says when a member has too few samples", () => {
    const dataset = new BlendedDataset([member(7, 1), member(8, 9)], buildBlendIndex([0.5, 0.5], 8));
    expect(() => dataset.readSample(7, new Int32Array(2))).not.toThrow();
    expect(() => dataset.readSample(6, new Int32Array(2))).toThrow(
      "expected member 0 of the blend to have more than 3",
    );
  });
});
