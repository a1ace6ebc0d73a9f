import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { AlgorithmCache, NearbyAlgorithms } from "./algorithms.ts";

let folder: string;
let before: string | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "algorithms-"));
  before = process.env["NAUTILUS_CACHE"];
  process.env["NAUTILUS_CACHE"] = folder;
});
afterEach(() => {
  if (before === undefined) delete process.env["NAUTILUS_CACHE"];
  else process.env["NAUTILUS_CACHE"] = before;
  rmSync(folder, { recursive: true });
});

const algorithm = (value: number) => ({ bytes: new Uint8Array(64).fill(value), microseconds: value });

it("keeps entries from run to run and joins those of two processes", () => {
  const first = new AlgorithmCache("NVIDIA H200", 130_200);
  const second = new AlgorithmCache("NVIDIA H200", 130_200);
  expect(first.get("a")).toBeUndefined();
  expect(second.get("a")).toBeUndefined();
  first.set("a", algorithm(1));
  second.set("b", algorithm(2));
  const third = new AlgorithmCache("NVIDIA H200", 130_200);
  expect(third.get("a")).toEqual(algorithm(1));
  expect(third.get("b")).toEqual(algorithm(2));
});

it("does not mix library versions", () => {
  new AlgorithmCache("NVIDIA H200", 130_200).set("a", algorithm(1));
  expect(new AlgorithmCache("NVIDIA H200", 130_300).get("a")).toBeUndefined();
  expect(new AlgorithmCache("NVIDIA A100", 130_200).get("a")).toBeUndefined();
});

it("takes a broken file for an empty one", () => {
  const cache = new AlgorithmCache("NVIDIA H200", 130_200);
  cache.set("a", algorithm(1));
  for (const content of ["{", "[]", "null", '{"a": 1, "b": ["zz", 1], "c": ["00", 1]}']) {
    writeFileSync(cache.path, content);
    expect(new AlgorithmCache("NVIDIA H200", 130_200).get("a")).toBeUndefined();
  }
});

it("lends the algorithm of nearly as many rows to a product of the same shape", () => {
  const nearby = new NearbyAlgorithms();
  const [small, large] = [new Uint8Array(64).fill(1), new Uint8Array(64).fill(2)];
  nearby.add("4096 12288 4096 0100", 4096, large);
  nearby.add("1024 12288 4096 0100", 1024, small);
  expect(nearby.get("4085 12288 4096 0100", 4085)).toBe(large);
  expect(nearby.get("2049 12288 4096 0100", 2049)).toBe(large);
  expect(nearby.get("2047 12288 4096 0100", 2047)).toBe(small);
  expect(nearby.get("2048 12288 4096 0100", 2048)).toBeUndefined();
  expect(nearby.get("8192 12288 4096 0100", 8192)).toBeUndefined();
  expect(nearby.get("4085 12288 4096 1100", 4085)).toBeUndefined();
});
