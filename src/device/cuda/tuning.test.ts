/** How long candidates of a large product are timed. */
import { expect, it } from "vitest";
import { lastingRuns } from "./tuning.ts";

it("runs candidates for about 100 ms in all, each for some milliseconds, and never for ever", () => {
  expect(lastingRuns(1, 1)).toBe(100);
  expect(lastingRuns(1, 10)).toBe(10);
  expect(lastingRuns(0.5, 50)).toBe(10);
  expect(lastingRuns(80, 12)).toBe(4);
  expect(lastingRuns(0, 1)).toBe(1000);
});
