import { expect, it } from "vitest";
import { Scheduler } from "./scheduler.ts";
import { Sequence } from "./sequence.ts";

function sequenceOf(prompt: readonly number[], arrival: number): Sequence<undefined> {
  return new Sequence({ prompt, maxNewTokens: 8, priority: 0, arrival, salt: "", task: undefined });
}

it.each([
  { prompt: [1, 2, 3, 9, 7], isDecode: false, why: "finds what the other one writes in the same step" },
  { prompt: [5], isDecode: true, why: "finds nothing" },
])("a step of single rows, of which one has just come and $why", ({ prompt, isDecode }) => {
  const scheduler = new Scheduler<undefined>({
    numBlocks: 16,
    blockSize: 4,
    maxStepRows: 16,
    maxSequences: 4,
  });
  const first = sequenceOf([1, 2, 3], 0);
  scheduler.add(first);
  expect(scheduler.plan()?.isDecode).toBe(false);
  scheduler.accept(first, 9);

  const second = sequenceOf(prompt, 1);
  scheduler.add(second);
  const step = scheduler.plan();
  expect(step?.pieces.map(({ numRows, draws }) => [numRows, draws])).toEqual([
    [1, true],
    [1, true],
  ]);
  expect(step?.isDecode).toBe(isDecode);

  scheduler.accept(first, 4);
  scheduler.accept(second, 4);
  expect(scheduler.plan()?.isDecode).toBe(true);
});
