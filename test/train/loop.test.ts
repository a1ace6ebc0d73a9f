/** What the training loop tells of its steps, with steps that take a known time. */
import { expect, it } from "vitest";
import { createReferenceDevice } from "../../src/device/reference/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { AdamW, TrainingRun } from "../../src/train/index.ts";
import type { FinishedStep, StepRunner } from "../../src/train/index.ts";
import { randomData, tinyDecoder } from "../tiny-model.ts";

const sequenceLength = 8;
const stepMs = 20;

/** A step on a device that computes while it queues. */
function stepThatComputesAtOnce(): StepRunner {
  return {
    run() {
      for (const startMs = performance.now(); performance.now() - startMs < stepMs;);
      return { isReady: true, wait: () => ({ loss: 1, numTargets: 1, gradientNorm: 1 }) };
    },
    [Symbol.dispose]() {},
  };
}

it("counts a step's own time, also before and after an evaluation", async () => {
  using device = createReferenceDevice();
  const context = new Context(device);
  using decoder = tinyDecoder(context, "f32");
  using optimizer = new AdamW(context, decoder.parameters, {
    betas: [0.9, 0.95],
    eps: 1e-8,
    weightDecay: 0,
    clip: 1,
    moments: "f32",
    master: false,
  });
  const steps: FinishedStep[] = [];
  const order: string[] = [];
  const run = new TrainingRun(
    context,
    { decoder, optimizer, data: randomData(sequenceLength), makeStep: stepThatComputesAtOnce },
    {
      options: {
        schedule: { lr: 1e-3, minLr: 1e-4, warmupTokens: 0, decayFraction: 1 },
        batches: {
          batchTokens: 4 * sequenceLength,
          ramp: [],
        },
        totalTokens: 20 * sequenceLength,
        sequenceLength,
        microBatchSequences: 4,
        recompute: "none",
        seed: 1,
        spikeFactor: 0,
        maxSkippedSteps: 1,
        evaluateEverySteps: 3,
        checkpointEverySteps: 0,
      },
      events: {
        stepEnd: (step) => {
          steps.push(step);
          order.push(`step ${step.step}`);
        },
        evaluate: ({ step }) => {
          order.push(`evaluation ${step}`);
        },
      },
    },
  );
  expect(await run.run()).toBe("finished");
  expect(order).toEqual(["step 1", "step 2", "step 3", "evaluation 3", "step 4", "step 5", "evaluation 5"]);
  for (const { tokensPerSecond, numTokens } of steps)
    expect(numTokens / tokensPerSecond).toBeGreaterThanOrEqual((0.99 * stepMs) / 1000);
});
