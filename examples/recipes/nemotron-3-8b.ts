/**
 * The recipe of the Nemotron-3-8B-Base-4k model card on one 141 GB card: 3e-4 to 3e-5 with 500 M tokens of warm-up and a cosine over
 * 95 % of the tokens, sequences of 4,096, bf16. The card's 3.8 T tokens took 1,024 GPUs 19 days: set `totalTokens` to what you have.
 * npx nautilus train examples/recipes/nemotron-3-8b.ts --dry-run
 */
import { defineRecipe } from "../../src/index.ts";

export default defineRecipe({
  run: "runs/nemotron-3-8b",
  model: "nemotron-3-8b",
  tokenizer: { vocabSize: 256000 },
  data: { train: [{ source: "corpus/*.jsonl.gz" }] },
  sequenceLength: 4096,
  totalTokens: 3_800_000_000_000,
  batchTokens: 1024 * 4096,
  microBatchSequences: 1,
  precision: "bf16",
  recompute: "norm-activation",
  optim: { moments: "bf16", master: true },
});
