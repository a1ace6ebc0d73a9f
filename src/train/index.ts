/** Training: recipes, schedules, AdamW, the loop, checkpoints and metrics. */
export { listCheckpoints, loadCheckpoint, saveCheckpoint } from "./checkpoint.ts";
export { bitsPerByte, evaluateLoss } from "./evaluate.ts";
export type { EvaluationResult } from "./evaluate.ts";
export { initialRunState, TrainingRun } from "./loop.ts";
export type { FinishedStep, LoopOptions, RunEvents, RunOutcome, RunState, TrainingData } from "./loop.ts";
export { MetricsWriter, readMetrics } from "./metrics.ts";
export type { EvaluationMetrics, Metrics, StepMetrics } from "./metrics.ts";
export { AdamW } from "./optimizer.ts";
export type { OptimizerConfig } from "./optimizer.ts";
export { defineRecipe, parseRecipe, recipeSchema, withAssignment } from "./recipe.ts";
export type { Recipe, RecipeInput } from "./recipe.ts";
export { checkBatchSchedule, countSteps, learningRateAt, sequencesAt } from "./schedule.ts";
export type { BatchSchedule, LearningRateSchedule } from "./schedule.ts";
export { ignoreIndex, TrainingStep } from "./step.ts";
export type { HostBatch, PendingStep, StepResult } from "./step.ts";
export { TensorBoardWriter } from "./tensorboard.ts";
