/**
 * About 15 M parameters with a 16k vocabulary on the same shards: a small model for two cores.
 * NAUTILUS_CORPUS=corpus npx nautilus train examples/recipes/corpus-15m.ts
 */
import { defineRecipe } from "../../src/index.ts";
import larger from "./corpus-125m.ts";

const totalTokens = Number(process.env["NAUTILUS_TOKENS"] ?? 12_000_000);

export default defineRecipe({
  ...larger,
  run: "runs/corpus-15m",
  model: {
    preset: "nemotron-10m",
    width: 288,
    ffnWidth: 1152,
    numLayers: 6,
    numHeads: 9,
    numKvHeads: 9,
    headDim: 32,
  },
  tokenizer: { vocabSize: 16384, sampleBytes: 60_000_000 },
  sequenceLength: 512,
  totalTokens,
  batchTokens: 16 * 512,
  microBatchSequences: 8,
  precision: "f32",
  optim: { lr: 2e-3, minLr: 2e-4, warmupTokens: Math.round(totalTokens * 0.03) },
  evaluation: { everySteps: 0, maxTokens: 200_000 },
  checkpoint: { everySteps: 200, keep: 2 },
});
