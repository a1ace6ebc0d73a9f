/** Inference: the engine (scheduler, paged cache, runner on token ids), sampling options, and a language model over an engine. */
export type { BlockTable } from "./cache/blockTable.ts";
export { GrammarCompiler } from "./constraint/compiler.ts";
export type { ConstraintCompiler, ConstraintState } from "./constraint/contract.ts";
export { StackedAdapters } from "./engine/stackedAdapters.ts";
export type { StackedAdaptersOptions } from "./engine/stackedAdapters.ts";
export type { AdapterSlots } from "./engine/adapters.ts";
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
export { EngineCore } from "./engine/core.ts";
export type { EngineCoreOptions } from "./engine/core.ts";
export { createEngine, defaultBlockSize } from "./engine/create.ts";
export type { EngineOptions } from "./engine/create.ts";
export { generateTogether } from "./engine/together.ts";
export type { IndexedEvent } from "./engine/together.ts";
export { EngineLanguageModel } from "./evaluation/engineLanguageModel.ts";
export type { EngineLanguageModelOptions } from "./evaluation/engineLanguageModel.ts";
export { generateText, promptTokens } from "./generateText.ts";
export type { TextRequest } from "./generateText.ts";
export { batchBucket } from "./runner/decodeGraphs.ts";
export { ModelRunner } from "./runner/modelRunner.ts";
export type { RunnerOptions } from "./runner/modelRunner.ts";
export { SteadyBatch } from "./runner/steadyBatch.ts";
export type { PendingStep, RunnerTask, StepResult, StepRunner } from "./runner/task.ts";
export { parseSampling } from "./sampling.ts";
export type { SamplingInput, SamplingOptions } from "./sampling.ts";
export { Scheduler } from "./scheduler/scheduler.ts";
export type { SchedulerOptions, Step, StepPiece } from "./scheduler/scheduler.ts";
export { Sequence } from "./scheduler/sequence.ts";
export { TextStream } from "./textStream.ts";
export type { FromEngine } from "./thread/messages.ts";
export { serveEngine } from "./thread/serveEngine.ts";
export { ThreadedEngine } from "./thread/threadedEngine.ts";
export type { ThreadedEngineOptions } from "./thread/threadedEngine.ts";
