import { describe, expect, it } from "vitest";
import { countOf } from "./units.ts";

describe("countOf", () => {
  it.each([
    [0, "0 examples"],
    [1, "1 example"],
    [2, "2 examples"],
    [12_300, "12300 examples"],
  ])("says %i in words", (count, words) => {
    expect(countOf(count, "example")).toBe(words);
  });
});
