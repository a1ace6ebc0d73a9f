/** What the golden tests of adapters share: the base model, its logits of the fixtures' tokens, and how far apart two results are. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import type { Decoder } from "../../src/models/index.ts";
import type { Context } from "../../src/tensor/index.ts";

/** Path of a file of test/fixtures/adapters. */
export function adapterFixture(name: string): string {
  return fileURLToPath(new URL(`../fixtures/adapters/${name}`, import.meta.url));
}

export interface GoldenLogits {
  tokens: number[][];
  logits: Record<string, number[]>;
}

export function readGolden(name: string): GoldenLogits {
  return JSON.parse(readFileSync(adapterFixture(name), "utf8")) as GoldenLogits;
}

/** Logits of all sequences of equal length, without those of the virtual tokens put before each. */
export function logitsOf(
  context: Context,
  model: Decoder,
  { tokens, numVirtual = 0 }: { tokens: readonly (readonly number[])[]; numVirtual?: number },
): Float64Array {
  const { vocabSize } = model.config;
  const virtual = Array.from({ length: numVirtual }, (_, i) => vocabSize + i);
  const rows = tokens.flatMap((sequence) => [...virtual, ...sequence]);
  const sequenceLength = numVirtual + tokens[0].length;
  const all = context.scope(() => {
    const hidden = model.forward(context, {
      tokens: context.tensor(rows, [rows.length], "i32"),
      positions: context.tensor(
        rows.map((_, row) => row % sequenceLength),
        [rows.length],
        "i32",
      ),
      numSequences: tokens.length,
      sequenceLength,
    });
    return model.logits(context, hidden).toArray();
  });
  return all.filter((_, i) => Math.floor(i / vocabSize) % sequenceLength >= numVirtual);
}

export function largestDifference(got: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(got.length).toBe(expected.length);
  return Array.from(got).reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0);
}
