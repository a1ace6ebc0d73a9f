/**
 * The demonstration model in demo/nautilus-demo-20m: 20.5 M parameters, English, five more languages and code, made for one GPU in
 * two minutes. The corpus is a sample (scripts/sample-corpus.ts, shards and megabytes in the model card) with `heldout/` beside it.
 * NAUTILUS_CORPUS=corpus npx nautilus train examples/recipes/demo-20m.ts
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { defineRecipe } from "../../src/index.ts";

const corpus = process.env["NAUTILUS_CORPUS"] ?? "corpus";
const heldOut = join(corpus, "heldout");

function shards(folder: string): [string, ...string[]] {
  const [first, ...rest] = readdirSync(folder).filter((name) => /\.jsonl(\.gz)?$/.test(name));
  return [first, ...rest].map((name) => join(folder, name)) as [string, ...string[]];
}

const totalTokens = Number(process.env["NAUTILUS_TOKENS"] ?? 165_000_000);

export default defineRecipe({
  run: "runs/demo-20m",
  model: "nemotron-25m",
  tokenizer: { vocabSize: 8192, sampleBytes: 100_000_000 },
  data: {
    train: [{ source: { kind: "json-lines", paths: shards(corpus) } }],
    validation: shards(heldOut).map((path) => ({
      name: path.slice(heldOut.length + 1).replace(/\.jsonl(\.gz)?$/, ""),
      source: { kind: "json-lines", paths: path },
    })),
  },
  sequenceLength: 2048,
  totalTokens,
  batchTokens: 32 * 2048,
  microBatchSequences: 32,
  precision: "bf16",
  optim: { lr: 2e-3, minLr: 1e-4, warmupTokens: Math.round(totalTokens * 0.03) },
  evaluation: { everySteps: 0, maxTokens: 600_000 },
  checkpoint: { everySteps: 0, keep: 1 },
});
