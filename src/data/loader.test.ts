import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ignoredTarget, type TokenBatch, TokenLoader, type TokenLoaderOptions } from "./loader.ts";
import { paddingId, type TokenDataset } from "./sampling/tokenDataset.ts";

/** Samples whose ids tell where they come from: sample i is i * 100, i * 100 + 1, ... */
function numbered(numSamples: number, sequenceLength = 3): TokenDataset {
  return {
    numSamples,
    sequenceLength,
    fingerprint: "numbered",
    readSample: (index, out, at = 0) => {
      for (let i = 0; i <= sequenceLength; i++) out[at + i] = index * 100 + i;
    },
  };
}

function fixed(...samples: number[][]): TokenDataset {
  return {
    numSamples: samples.length,
    sequenceLength: samples[0].length - 1,
    fingerprint: "fixed",
    readSample: (index, out, at = 0) => out.set(samples[index], at),
  };
}

function first(options: TokenLoaderOptions): TokenBatch {
  const batch = new TokenLoader(options).next();
  expect(batch).toBeDefined();
  return batch as TokenBatch;
}

describe("TokenLoader", () => {
  it("gives inputs and the tokens that follow them", () => {
    const batch = first({ dataset: numbered(4), microBatchSize: 2 });
    expect([...batch.tokens]).toEqual([0, 1, 2, 100, 101, 102]);
    expect([...batch.targets]).toEqual([1, 2, 3, 101, 102, 103]);
    const rest = { numTargets: 6, numSequences: 2, sequenceLength: 3 };
    expect(batch).toEqual({ tokens: batch.tokens, targets: batch.targets, ...rest });
  });

  it("continues exactly from its state", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 0, max: 6 }),
        (microBatchSize, numBefore) => {
          const dataset = numbered(20);
          const whole = [...new TokenLoader({ dataset, microBatchSize })];
          const stopped = new TokenLoader({ dataset, microBatchSize });
          for (let i = 0; i < numBefore; i++) stopped.next();
          const { state } = stopped;
          const resumed = [...new TokenLoader({ dataset, microBatchSize, state })];
          expect(resumed).toEqual(whole.slice(numBefore));
        },
      ),
    );
  });

  it("gives the ranks the rows of the global batch between them", () => {
    const all = [...new TokenLoader({ dataset: numbered(14), microBatchSize: 6 })];
    const ranks = [0, 1, 2].map((dataParallelRank) => [
      ...new TokenLoader({ dataset: numbered(14), microBatchSize: 2, dataParallelSize: 3, dataParallelRank }),
    ]);
    expect(all).toHaveLength(2);
    all.forEach((batch, step) => {
      expect([...batch.tokens]).toEqual(ranks.flatMap((batches) => [...batches[step].tokens]));
    });
  });

  it("drops or fills up the samples that make no whole batch", () => {
    const options = { dataset: numbered(5), microBatchSize: 2 };
    expect(new TokenLoader(options).numBatches).toBe(2);
    expect([...new TokenLoader(options)]).toHaveLength(2);
    const padded = new TokenLoader({ ...options, lastBatch: "pad" });
    expect(padded.numBatches).toBe(3);
    const last = [...padded].at(-1);
    expect(last).toMatchObject({ numTargets: 3 });
    expect([...(last?.tokens ?? [])]).toEqual([400, 401, 402, 0, 0, 0]);
    expect([...(last?.targets ?? [])].slice(3)).toEqual([ignoredTarget, ignoredTarget, ignoredTarget]);
    expect(padded.state).toEqual({ samplesConsumed: 5 });
    expect(padded.next()).toBeUndefined();
  });

  it("has no loss where the text has ended", () => {
    const batch = first({ dataset: fixed([7, 8, paddingId, paddingId]), microBatchSize: 1 });
    expect([...batch.tokens]).toEqual([7, 8, 0]);
    expect([...batch.targets]).toEqual([8, ignoredTarget, ignoredTarget]);
    expect(batch.numTargets).toBe(1);
  });

  it("begins again at documents when asked to", () => {
    const dataset = fixed([5, 9, 6, 7, 9, 9, 8], [9, 1, 2, 3, 4, 5, 9]);
    const batch = first({
      dataset,
      microBatchSize: 2,
      eosId: 9,
      resetPositionIds: true,
      resetAttentionMask: true,
      eodMaskLoss: true,
    });
    expect([...batch.tokens]).toEqual([5, 9, 6, 7, 9, 9, 9, 1, 2, 3, 4, 5]);
    expect([...(batch.positions ?? [])]).toEqual([0, 1, 0, 1, 2, 0, 0, 0, 1, 2, 3, 4]);
    expect([...(batch.cuSeqLens ?? [])]).toEqual([0, 2, 5, 6, 7, 12]);
    expect(batch).toMatchObject({ numSequences: 5, sequenceLength: 5 });
    const none = ignoredTarget;
    expect([...batch.targets]).toEqual([9, none, 7, 9, none, none, none, 2, 3, 4, 5, 9]);
    expect(batch.numTargets).toBe(8);
  });

  it("keeps attention and positions apart", () => {
    const options = { dataset: fixed([5, 9, 6, 7]), microBatchSize: 1, eosId: 9 };
    const attention = first({ ...options, resetAttentionMask: true });
    expect([...(attention.positions ?? [])]).toEqual([0, 1, 2]);
    expect([...(attention.cuSeqLens ?? [])]).toEqual([0, 2, 3]);
    const positions = first({ ...options, resetPositionIds: true });
    expect([...(positions.positions ?? [])]).toEqual([0, 1, 0]);
    expect(positions).toMatchObject({ numSequences: 1, sequenceLength: 3 });
    expect(positions.cuSeqLens).toBeUndefined();
  });

  it("gives any samples by their number", () => {
    const loader = new TokenLoader({ dataset: numbered(5), microBatchSize: 2 });
    expect([...loader.batch(3, 2).tokens]).toEqual([300, 301, 302, 400, 401, 402]);
    expect(loader.state).toEqual({ samplesConsumed: 0 });
    expect(() => loader.batch(4, 2)).toThrow("expected 6 samples of 3 tokens in the data, got 5");
  });

  it("refuses what it cannot do", () => {
    const dataset = numbered(4);
    expect(() => new TokenLoader({ dataset, microBatchSize: 0 })).toThrow(
      "microBatchSize: expected a whole number",
    );
    expect(() => new TokenLoader({ dataset, microBatchSize: 1, dataParallelRank: 1 })).toThrow(
      "from 0 to 0, got 1",
    );
    expect(() => new TokenLoader({ dataset, microBatchSize: 1, eodMaskLoss: true })).toThrow(
      "eosId: expected",
    );
    expect(() => new TokenLoader({ dataset, microBatchSize: 1, state: { samplesConsumed: 5 } })).toThrow(
      "samplesConsumed: expected a whole number from 0 to 4, got 5",
    );
  });
});
