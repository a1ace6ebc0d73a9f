/**
 * Learning rate and batch size as functions of the tokens seen so far.
 *
 * The card's schedule: linear warm-up in tokens, cosine from the peak to the floor that ends at 95 % of all tokens (Megatron's
 * reading: the decay's end, not its length, is at 95 %; it includes the warm-up), then the floor.
 * Formula: megatron/core/optimizer_param_scheduler.py, 0.5 (cos(pi (n - warm-up) / (end - warm-up)) + 1).
 */
import { ConfigError } from "../base/index.ts";

export interface LearningRateSchedule {
  /** Peak. */
  lr: number;
  /** Floor. */
  minLr: number;
  warmupTokens: number;
  /** Share of all tokens after which the floor is reached. */
  decayFraction: number;
}

/** The learning rate of the step that begins after `tokensSeen` of `totalTokens` and takes `stepTokens` more. */
export function learningRateAt(
  schedule: LearningRateSchedule,
  { tokensSeen, stepTokens, totalTokens }: { tokensSeen: number; stepTokens: number; totalTokens: number },
): number {
  const { lr, minLr, warmupTokens, decayFraction } = schedule;
  // Counting the step's own tokens keeps the very first step from a rate of zero.
  const tokens = tokensSeen + stepTokens;
  if (tokens <= warmupTokens) return lr * (tokens / warmupTokens);
  const end = decayFraction * totalTokens;
  if (tokens >= end) return minLr;
  const progress = (tokens - warmupTokens) / (end - warmupTokens);
  return minLr + (lr - minLr) * 0.5 * (1 + Math.cos(Math.PI * progress));
}

export interface BatchSchedule {
  /** Tokens of one optimizer step. */
  batchTokens: number;
  /** Smaller batches before the given numbers of tokens, in ascending order. */
  ramp: readonly { untilTokens: number; batchTokens: number }[];
}

/** Sequences of the step that begins after `tokensSeen`. */
export function sequencesAt(
  { batchTokens, ramp }: BatchSchedule,
  tokensSeen: number,
  sequenceLength: number,
): number {
  const stage = ramp.find(({ untilTokens }) => tokensSeen < untilTokens);
  return (stage?.batchTokens ?? batchTokens) / sequenceLength;
}

/** Checks that every batch is a whole number of sequences. Throws ConfigError. */
export function checkBatchSchedule({ batchTokens, ramp }: BatchSchedule, sequenceLength: number): void {
  for (const tokens of [batchTokens, ...ramp.map((stage) => stage.batchTokens)]) {
    if (tokens < sequenceLength || tokens % sequenceLength !== 0) {
      throw new ConfigError(
        "recipe",
        `batchTokens: expected a multiple of sequenceLength ${sequenceLength}, got ${tokens}`,
      );
    }
  }
}

/** Steps that `totalTokens` take, the last one included even where it goes beyond. */
export function countSteps(
  schedule: BatchSchedule,
  { totalTokens, sequenceLength }: { totalTokens: number; sequenceLength: number },
): number {
  let numSteps = 0;
  let begin = 0;
  for (const { untilTokens, batchTokens } of [
    ...schedule.ramp,
    { untilTokens: Infinity, batchTokens: schedule.batchTokens },
  ]) {
    const end = Math.min(untilTokens, totalTokens);
    if (end <= begin) continue;
    const stageSteps = Math.ceil((end - begin) / batchTokens);
    numSteps += stageSteps;
    begin += stageSteps * batchTokens;
  }
  checkBatchSchedule(schedule, sequenceLength);
  return numSteps;
}
