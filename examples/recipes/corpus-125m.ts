/**
 * A 135 M-parameter Nemotron on a folder of JSON-lines shards (one per language, `code-*` for programming languages, `heldout/` beside
 * them), by the card's schedule scaled to the token budget. Meant for one GPU.
 * NAUTILUS_CORPUS=corpus npx nautilus train examples/recipes/corpus-125m.ts
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { defineRecipe } from "../../src/index.ts";

const corpus = process.env["NAUTILUS_CORPUS"] ?? "corpus";
const heldOut = join(corpus, "heldout");

function shards(folder: string, isWanted: (name: string) => boolean): [string, ...string[]] {
  const [first, ...rest] = readdirSync(folder)
    .filter((name) => /\.jsonl(\.gz)?$/.test(name) && isWanted(name))
    .map((name) => join(folder, name));
  return [first, ...rest];
}

const isCode = (name: string): boolean => name.startsWith("code-");
const isEnglish = (name: string): boolean => name.startsWith("en.");
const group = (name: string, isWanted: (shard: string) => boolean) => ({
  name,
  source: { kind: "json-lines" as const, paths: shards(heldOut, isWanted) },
});

const totalTokens = Number(process.env["NAUTILUS_TOKENS"] ?? 200_000_000);

export default defineRecipe({
  run: "runs/corpus-125m",
  model: "nemotron-125m",
  tokenizer: { vocabSize: 32768, sampleBytes: 60_000_000 },
  data: {
    train: [{ source: { kind: "json-lines", paths: shards(corpus, () => true) } }],
    validation: [
      group("english", isEnglish),
      group("languages", (name) => !isEnglish(name) && !isCode(name)),
      group("code", isCode),
    ],
  },
  sequenceLength: 1024,
  totalTokens,
  batchTokens: 128 * 1024,
  microBatchSequences: 32,
  precision: "bf16",
  // The card warms up over 500 M of 3.8 T tokens; a short run needs a larger share.
  optim: {
    lr: 1e-3,
    minLr: 1e-4,
    warmupTokens: Math.round(totalTokens * 0.03),
    moments: "f32",
    master: true,
  },
  evaluation: { everySteps: 250, maxTokens: 600_000 },
  checkpoint: { everySteps: 500, keep: 1 },
});
