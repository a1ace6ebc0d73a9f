import { describe, expect, it } from "vitest";
import { PythonRandom } from "./random.ts";
import { byteLength, capitalize, compareCodePoints, length, splitWords, strip } from "./text.ts";

describe("Python's random numbers (values printed by CPython 3.11)", () => {
  it("draws floats and samples of Random(1234)", () => {
    const random = new PythonRandom(1234);
    expect([random.nextFloat(), random.nextFloat(), random.nextFloat()]).toEqual([
      0.9664535356921388, 0.4407325991753527, 0.007491470058587191,
    ]);
    expect(random.sampleIndices(1000, 5)).toEqual([932, 965, 961, 826, 596]);
    expect(random.sampleIndices(30, 6)).toEqual([1, 21, 22, 2, 3, 24]);
    expect(random.sampleIndices(10, 3)).toEqual([5, 3, 0]);
  });

  it("draws choices of Random(5), and takes seeds above 32 bits", () => {
    const random = new PythonRandom(5);
    expect(Array.from({ length: 8 }, () => Math.floor(random.nextFloat() * 100))).toEqual([
      62, 74, 79, 94, 73, 92, 2, 46,
    ]);
    expect(new PythonRandom(2 ** 40 + 7).nextFloat()).toBe(0.6137037779936511);
  });
});

describe("places drawn in bulk", () => {
  it.each([1, 311, 312, 313, 1000])("%i of them equal those drawn one by one, from any point on", (count) => {
    for (const numSkipped of [0, 1, 2, 623]) {
      const [bulk, single] = [new PythonRandom(3), new PythonRandom(3)];
      for (let i = 0; i < numSkipped; i++) expect(bulk.nextUint32()).toBe(single.nextUint32());
      for (const limit of [5153, 7]) {
        const places = new Int32Array(count);
        bulk.fillPlaces(places, limit);
        expect([...places]).toEqual(
          Array.from({ length: count }, () => Math.floor(single.nextFloat() * limit)),
        );
      }
    }
  });
});

describe("Python's texts", () => {
  it("strips what Python calls whitespace", () => {
    expect(strip("\u0085\u001c a b \u3000\n")).toBe("a b");
    expect(strip("\ufeffa\ufeff")).toBe("\ufeffa\ufeff");
    expect(splitWords("  a\u0085b \n c ")).toEqual(["a", "b", "c"]);
  });

  it("counts code points and bytes", () => {
    expect(length("naïve 🐙")).toBe(7);
    expect(length("\ud83d")).toBe(1);
    expect(byteLength("é🐙")).toBe(6);
  });

  it("capitalises the first letter and lowers the rest", () => {
    expect(capitalize("hELLO World")).toBe("Hello world");
    expect(capitalize("")).toBe("");
  });

  it("orders by code point", () => {
    // In UTF-16 units the second would come first.
    expect(["\uff21", "🐙", "a", "ab"].toSorted(compareCodePoints)).toEqual(["a", "ab", "\uff21", "🐙"]);
  });
});
