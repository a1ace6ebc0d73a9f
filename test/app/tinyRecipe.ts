/** The recipe that tests of the command line train: two layers of width 32 on the folder `texts`, on one thread. */
export const tinyRecipe = {
  model: {
    preset: "nemotron-tiny",
    width: 32,
    ffnWidth: 64,
    numLayers: 2,
    numHeads: 2,
    numKvHeads: 2,
    headDim: 16,
  },
  tokenizer: { vocabSize: 320, sampleBytes: 100_000 },
  data: { train: [{ source: { kind: "tree", paths: "texts" } }], split: "80,20,0" },
  sequenceLength: 32,
  batchTokens: 256,
  microBatchSequences: 4,
  device: "cpu",
  threads: 1,
};
