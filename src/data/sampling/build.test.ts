import { writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { createEncoder } from "../../../test/data/byteEncoder.ts";
import { fixturePath, Scratch } from "../../../test/data/scratch.ts";
import { TokenLoader } from "../loader.ts";
import { MegatronWriter } from "../megatron/writer.ts";
import { prepareDataset } from "../prepare/prepare.ts";
import { openBlend, openInOrder, openSplits } from "./build.ts";
import type { TokenDataset } from "./tokenDataset.ts";

function write(prefix: string, documents: readonly number[][]): string {
  using writer = new MegatronWriter(prefix, "uint16");
  for (const document of documents) writer.addDocument(document, 10 * document.length);
  writer.finish({ vocabSize: 1000, eosId: 0, tokenizerSha256: null, numEmptyDocuments: 0 });
  return prefix;
}

function samplesOf(dataset: TokenDataset): number[][] {
  return Array.from({ length: dataset.numSamples }, (_, i) => {
    const out = new Int32Array(dataset.sequenceLength + 1);
    dataset.readSample(i, out);
    return [...out];
  });
}

/** `count` documents of ten tokens, each `first` + its number. */
const tens = (count: number, first: number): number[][] =>
  Array.from({ length: count }, (_, i) => Array<number>(10).fill(first + i));

describe("openBlend", () => {
  it("mixes prefixes by weight, the same samples for the same seed", () => {
    using scratch = new Scratch();
    const blend = [
      { prefix: write(scratch.path("a"), tens(20, 100)), weight: 3 },
      { prefix: write(scratch.path("b"), tens(20, 500)), weight: 1 },
    ];
    const options = { sequenceLength: 5, numSamples: 80, seed: 3 };
    using opened = openBlend(blend, options);
    using again = openBlend(blend, options);
    using other = openBlend(blend, { ...options, seed: 4 });
    const samples = samplesOf(opened.dataset);
    expect(samples).toHaveLength(80);
    expect(samples.filter(([token]) => token < 500)).toHaveLength(60);
    expect(samplesOf(again.dataset)).toEqual(samples);
    expect(samplesOf(other.dataset)).not.toEqual(samples);
    expect(again.dataset.fingerprint).toBe(opened.dataset.fingerprint);
    expect(other.dataset.fingerprint).not.toBe(opened.dataset.fingerprint);
    expect(opened.textBytes()).toBe(4000);
  });

  it("takes one epoch of each without weights", () => {
    using scratch = new Scratch();
    const blend = [
      { prefix: write(scratch.path("a"), tens(2, 1)) },
      { prefix: write(scratch.path("b"), tens(3, 50)) },
    ];
    using opened = openBlend(blend, { sequenceLength: 5 });
    expect(opened.dataset.numSamples).toBe(3 + 5);
  });

  it("refuses half-weighted blends and weights without a number of samples", () => {
    using scratch = new Scratch();
    const prefix = write(scratch.path("a"), tens(2, 1));
    const options = { sequenceLength: 5 };
    expect(() => openBlend([], options)).toThrow("expected at least one data set");
    expect(() => openBlend([{ prefix, weight: 1 }, { prefix }], options)).toThrow(
      "on all 2 data sets or on none, got 1",
    );
    expect(() =>
      openBlend(
        [
          { prefix, weight: 1 },
          { prefix, weight: 2 },
        ],
        options,
      ),
    ).toThrow("expected a number of samples for a weighted blend");
  });

  it("names the file whose ids are not in the vocabulary", () => {
    using opened = openBlend([{ prefix: fixturePath("tokens-int32") }], {
      sequenceLength: 70,
      vocabSize: 256_000,
    });
    expect(() => samplesOf(opened.dataset)).not.toThrow();
    using small = openBlend([{ prefix: fixturePath("tokens-int32") }], {
      sequenceLength: 70,
      vocabSize: 32_000,
    });
    expect(() => samplesOf(small.dataset)).toThrow(
      /expected token ids below 32000 in .*tokens-int32\.bin, got (70000|255999) at token 0 of document [02] \(the data was prepared with another tokenizer\)/,
    );
  });

  it("refuses at once what is known to be of a larger vocabulary", () => {
    using scratch = new Scratch();
    const prefix = write(scratch.path("a"), tens(2, 1));
    expect(() => openBlend([{ prefix }], { sequenceLength: 5, vocabSize: 999 })).toThrow(
      /expected tokens of a vocabulary of at most 999 in .*a\.bin, got one of 1000/,
    );
  });

  it("names the file that has too little text", () => {
    expect(() => openBlend([{ prefix: fixturePath("tokens-int32") }], { sequenceLength: 500 })).toThrow(
      /tokens-int32\.bin: expected at least 501 tokens for one sample of sequence length 500, got 76 in 3 documents/,
    );
  });
});

describe("openSplits", () => {
  it("cuts contiguous parts that share no document", () => {
    using scratch = new Scratch();
    const prefix = write(scratch.path("a"), tens(20, 100));
    using parts = openSplits([{ prefix }], { split: "8,1,1", sequenceLength: 4, numSamples: { train: 100 } });
    const documents = (name: "train" | "valid" | "test"): number[] =>
      [...new Set(samplesOf(parts[name]?.dataset as TokenDataset).flat())].toSorted((a, b) => a - b);
    expect(documents("train")).toEqual(tens(16, 100).map(([id]) => id));
    expect(documents("valid")).toEqual([116, 117]);
    expect(documents("test")).toEqual([118, 119]);
    expect(parts.valid?.textBytes()).toBe(200);
    expect(parts.train?.dataset.numSamples).toBeGreaterThanOrEqual(100);
    using two = openSplits([{ prefix }], { split: "9,1", sequenceLength: 4 });
    expect(two.test).toBeUndefined();
  });

  it("refuses a part without documents", () => {
    using scratch = new Scratch();
    const prefix = write(scratch.path("a"), tens(3, 1));
    expect(() => openSplits([{ prefix }], { split: "98,1,1", sequenceLength: 4 })).toThrow(
      /expected documents in the valid part of .*a\.bin, got none of its 3 with split "98,1,1"/,
    );
  });
});

describe("openInOrder", () => {
  it("makes every token but the first a target once, in order", async () => {
    using scratch = new Scratch();
    writeFileSync(scratch.path("t.jsonl"), '{"text":"hello"}\n{"text":"wörld"}\n');
    await prepareDataset({
      sources: [scratch.path("t.jsonl")],
      output: scratch.path("t"),
      encoder: createEncoder(),
    });
    using opened = openInOrder(scratch.path("t"), { sequenceLength: 4, vocabSize: 257 });
    const loader = new TokenLoader({ dataset: opened.dataset, microBatchSize: 2, lastBatch: "pad" });
    const targets = [...loader].flatMap((batch) => [...batch.targets].filter((target) => target >= 0));
    expect(targets).toEqual([...Buffer.from("ello"), 256, ...Buffer.from("wörld"), 256]);
    expect(opened.textBytes()).toBe(11);
  });
});
