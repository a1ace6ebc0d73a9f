/** The four published sizes of GPT-2, its distilled one, and small ones for CPUs. */
import { checkDecoderConfig } from "../common/config.ts";
import type { DecoderConfig } from "../common/config.ts";
import { gpt2Traits } from "./config.ts";

function preset(
  [numLayers, width, numHeads]: readonly [number, number, number],
  { vocabSize = 50257, maxPositions = 1024 }: { vocabSize?: number; maxPositions?: number } = {},
): DecoderConfig {
  return checkDecoderConfig({
    ...gpt2Traits,
    vocabSize,
    width,
    ffnWidth: 4 * width,
    numLayers,
    numHeads,
    numKvHeads: numHeads,
    headDim: width / numHeads,
    maxPositions,
  });
}

export const gpt2Presets: Readonly<Record<string, () => DecoderConfig>> = {
  gpt2: () => preset([12, 768, 12]),
  "gpt2-medium": () => preset([24, 1024, 16]),
  "gpt2-large": () => preset([36, 1280, 20]),
  "gpt2-xl": () => preset([48, 1600, 25]),
  distilgpt2: () => preset([6, 768, 12]),
  "gpt2-tiny": () => preset([4, 128, 4], { vocabSize: 4096, maxPositions: 512 }),
};
