/**
 * A 10 M-parameter Nemotron on any text: two cores train it in the background of an afternoon.
 * npx nautilus train examples/recipes/small.ts --set 'data.train=[{"source":"my-texts"}]'
 */
import { defineRecipe } from "../../src/index.ts";

export default defineRecipe({
  run: "runs/small",
  model: "nemotron-10m",
  tokenizer: { vocabSize: 8192 },
  data: { train: [{ source: { kind: "tree", paths: ["src", "docs"] } }] },
  sequenceLength: 512,
  totalTokens: 5_000_000,
  batchTokens: 8 * 512,
  microBatchSequences: 8,
  precision: "f32",
  optim: { lr: 1e-3, minLr: 1e-4, warmupTokens: 100_000 },
});
