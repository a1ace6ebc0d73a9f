import { expect, test } from "vitest";
import { isRegular } from "./productPlans.ts";

test("products of every step are regular: whole 64s, and a rank on one side", () => {
  const rows = 4096;
  expect(isRegular({ m: rows, n: 12_288, k: 4096, transposeA: 0 })).toBe(true);
  expect(isRegular({ m: rows, n: 16, k: 4096, transposeA: 0 })).toBe(true);
  expect(isRegular({ m: rows, n: 12_288, k: 16, transposeA: 0 })).toBe(true);
  expect(isRegular({ m: 16, n: 4096, k: rows, transposeA: 1 })).toBe(true);
});

test("rows that come and go are not", () => {
  expect(isRegular({ m: 16, n: 12_288, k: 4096, transposeA: 0 })).toBe(false);
  expect(isRegular({ m: 1000, n: 12_288, k: 4096, transposeA: 0 })).toBe(false);
  expect(isRegular({ m: 1000, n: 16, k: 4096, transposeA: 0 })).toBe(false);
  expect(isRegular({ m: 4096, n: 20, k: 4096, transposeA: 0 })).toBe(false);
});
