/** Inference: the paged cache, the runner on token ids, sampling options. Text enters in the engine alone. */
export { BlockAllocator } from "./blocks.ts";
export { generateTokens } from "./generate.ts";
export type { FinishReason, TokenEvent, TokenRequest } from "./generate.ts";
export { batchBucket, ModelRunner } from "./runner.ts";
export type { DrawnTokens, PendingTokens, RunnerOptions } from "./runner.ts";
export { parseSampling } from "./sampling.ts";
export type { SamplingInput, SamplingOptions } from "./sampling.ts";
export type { RunnerSequence } from "./stepInputs.ts";
export { generateText } from "./generateText.ts";
export type { TextEvent, TextRequest } from "./generateText.ts";
export { TextStream } from "./textStream.ts";
export type {
  Engine,
  EngineEvent,
  EngineFinishReason,
  EngineModelInfo,
  EngineRequest,
  EngineStatistics,
  OutputConstraint,
  TokenLogprobs,
} from "./engine/contract.ts";
