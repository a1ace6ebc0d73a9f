/** What the server says of itself and its models: for its page, and for people with curl. */
import { z } from "zod";

const count = z.int().nonnegative();

export const modelStatisticsSchema = z.strictObject({
  model: z.string(),
  tokensPerSecond: z.number(),
  numRunning: count,
  numWaiting: count,
  numBlocks: count,
  numUsedBlocks: count,
  numGeneratedTokens: count,
  numPromptTokens: count,
  numCachedPromptTokens: count,
});
export type ModelStatistics = z.output<typeof modelStatisticsSchema>;

export const serverStatisticsSchema = z.strictObject({
  models: z.array(modelStatisticsSchema),
  queueDepth: count,
  eventLoopDelayMs: z.strictObject({ p50: z.number(), p99: z.number() }),
});
export type ServerStatistics = z.output<typeof serverStatisticsSchema>;

export const modelDetailsSchema = z.strictObject({
  name: z.string(),
  adapters: z.array(z.string()),
  maxContext: count,
  vocabSize: count,
  width: count,
  numParameters: count,
  dtype: z.string(),
  quantise: z.string().nullable(),
  kvCache: z.string(),
  device: z.string(),
  hasChatTemplate: z.boolean(),
  card: z.string().nullable(),
  license: z.string().nullable(),
  created: z.int(),
});
export type ModelDetails = z.output<typeof modelDetailsSchema>;

export const serverInfoSchema = z.strictObject({ version: z.string(), models: z.array(modelDetailsSchema) });
export type ServerInfo = z.output<typeof serverInfoSchema>;
