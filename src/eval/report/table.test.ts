import { expect, it } from "vitest";
import { shown } from "./table.ts";

it("shows as many digits of a figure as say something", () => {
  expect([0.26142, 1].map((share) => shown(share, true))).toEqual(["26.14", "100.00"]);
  const perplexities = [0.5, 45.12345, 456.471, 7214.53, 26_812.2, 3.6e7];
  expect(perplexities.map((value) => shown(value, false))).toEqual([
    "0.500",
    "45.123",
    "456.5",
    "7215",
    "26812",
    "3.600e+7",
  ]);
  expect([undefined, NaN].map((value) => shown(value, true))).toEqual(["", ""]);
});
