/** What the three threads of bench/serve-gpu.ts tell each other: the model and its cache, a case, and what a case came to. */
import { z } from "zod";
import { quantisedFormats } from "../src/device/index.ts";
import { cacheFormats } from "../src/models/index.ts";
import { percentile } from "./serve-client.ts";
import type { Timing } from "./serve-client.ts";

export const engineSettingsSchema = z.strictObject({
  preset: z.string(),
  device: z.enum(["cpu", "cuda"]),
  quantise: z.enum(quantisedFormats).optional(),
  cacheTokens: z.int(),
  kvCache: z.enum(cacheFormats),
  maxContext: z.int().optional(),
  maxSequences: z.int(),
  maxStepRows: z.int(),
  blockSize: z.int().optional(),
});
export type BenchEngineSettings = z.output<typeof engineSettingsSchema>;

/** `concurrency` clients, each with `rounds` requests one after another. */
export const caseSchema = z.strictObject({
  concurrency: z.int().positive(),
  numPrompt: z.int().positive(),
  numNew: z.int().positive(),
  rounds: z.int().positive(),
  /** Of the prompts: no two runs share any. */
  seed: z.int(),
});
export type ServingCase = z.output<typeof caseSchema>;

const percentilesSchema = z.strictObject({ p50: z.number(), p99: z.number() });

export const figuresSchema = z.strictObject({
  numTokens: z.number(),
  seconds: z.number(),
  tokensPerSecond: z.number(),
  firstTokenMs: percentilesSchema,
  betweenMs: percentilesSchema,
});
export type ServingFigures = z.output<typeof figuresSchema>;

/** Totals of the engine since its start. */
export const totalsSchema = z.strictObject({
  numSteps: z.number(),
  stepSeconds: z.number(),
  hostSeconds: z.number(),
  waitSeconds: z.number(),
});
export type EngineTotals = z.output<typeof totalsSchema>;

export const toServerSchema = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("run"), case: caseSchema }),
  z.strictObject({ type: z.literal("totals") }),
  z.strictObject({ type: z.literal("stop") }),
]);
export type ToServer = z.output<typeof toServerSchema>;

export const fromServerSchema = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("ready"), url: z.string(), device: z.string(), openSeconds: z.number() }),
  z.strictObject({ type: z.literal("figures"), figures: figuresSchema }),
  z.strictObject({ type: z.literal("totals"), totals: totalsSchema }),
]);
export type FromServer = z.output<typeof fromServerSchema>;

/** Rates and times of a case's requests, from the first question to the last token. */
export function summarise(timings: readonly Timing[]): ServingFigures {
  const numTokens = timings.reduce(
    (total, { numCounted, numTokens: seen }) => total + (numCounted ?? seen),
    0,
  );
  const startMs = Math.min(...timings.map((timing) => timing.startMs));
  const seconds = (Math.max(...timings.map(({ endMs }) => endMs)) - startMs) / 1000;
  const percentiles = (values: readonly number[]): { p50: number; p99: number } => {
    const sorted = values.toSorted((a, b) => a - b);
    // NaN does not survive JSON.
    return { p50: sorted.length === 0 ? 0 : percentile(sorted, 0.5), p99: percentile(sorted, 0.99) || 0 };
  };
  return {
    numTokens,
    seconds,
    tokensPerSecond: numTokens / seconds,
    firstTokenMs: percentiles(timings.map((timing) => (timing.firstMs ?? timing.endMs) - timing.startMs)),
    betweenMs: percentiles(timings.flatMap(({ gapsMs }) => gapsMs)),
  };
}

/** Runs a case's clients over `once`, which is given the number of the request. */
export async function closedLoop(
  { concurrency, rounds }: ServingCase,
  once: (index: number) => Promise<Timing>,
): Promise<Timing[]> {
  const timings: Timing[] = [];
  const clients = Array.from({ length: concurrency }, async (_, client) => {
    for (let round = 0; round < rounds; round++) timings.push(await once(round * concurrency + client));
  });
  await Promise.all(clients);
  return timings;
}
