/** The demonstration: a small Nemotron model on this package's own source and docs, by the card's recipe scaled down. */
import { fileURLToPath } from "node:url";
import type { RecipeInput } from "../../train/index.ts";

/** The checkout or the installed package. */
const packageFolder = fileURLToPath(new URL("../../../", import.meta.url));

const sequenceLength = 256;
const batchSequences = 8;

export interface DemoSize {
  run: string;
  totalTokens: number;
  precision: "f32" | "bf16";
}

/** Warm-up over 3 % of the tokens, cosine to a tenth over 95 %, as the card; rates as small models like them. */
export function demoRecipe({ run, totalTokens, precision }: DemoSize): RecipeInput {
  const batchTokens = batchSequences * sequenceLength;
  return {
    run,
    model: {
      preset: "nemotron-tiny",
      width: 192,
      ffnWidth: 768,
      numLayers: 4,
      numHeads: 3,
      numKvHeads: 3,
      headDim: 64,
    },
    tokenizer: { vocabSize: 2048, sampleBytes: 4_000_000 },
    data: {
      train: [
        {
          source: {
            kind: "tree",
            paths: packageFolder,
            include: ["**/*.ts", "**/*.md", "**/*.cpp", "**/*.h", "**/*.cu", "**/*.cuh", "**/*.json"],
            exclude: [
              "test/fixtures/**",
              "demo/**",
              "runs/**",
              "dist/**",
              "package-lock.json",
              "node_modules/**",
            ],
          },
        },
      ],
      split: "97,3,0",
    },
    sequenceLength,
    totalTokens: Math.max(batchTokens, Math.round(totalTokens / batchTokens) * batchTokens),
    batchTokens,
    microBatchSequences: batchSequences,
    precision,
    optim: { lr: 3e-3, minLr: 3e-4, warmupTokens: Math.round(totalTokens * 0.03) },
    evaluation: { everySteps: 0, maxTokens: 60_000 },
    checkpoint: { everySteps: 0, keep: 1 },
    tensorboard: false,
  };
}
