/** Variants of an algorithm over a stand-in for the library's own functions, which keeps settings as they are in cublasLt.h. */
import { expect, it } from "vitest";
import { viewMemory } from "../ffi.ts";
import { isSameProduct } from "./timer.ts";
import { settingsBeside, variantsOf, type ConfigFunctions } from "./variants.ts";

/** Where the stand-in keeps each attribute; `refusedCluster` is one that it does not take. */
function standIn(customOptionMax: number, refusedCluster: number): ConfigFunctions {
  const offsets = new Map([
    [4, { offset: 8, byteLength: 4 }],
    [5, { offset: 16, byteLength: 4 }],
    [8, { offset: 24, byteLength: 2 }],
  ]);
  const place = (attribute: number, byteLength: number) => {
    const found = offsets.get(attribute);
    return found?.byteLength === byteLength ? found.offset : undefined;
  };
  const copy = (target: number, source: number, byteLength: number): void =>
    new Uint8Array(viewMemory(target, byteLength)).set(new Uint8Array(viewMemory(source, byteLength)));
  return {
    cublasLtMatmulAlgoConfigGetAttribute: (algorithm, attribute, value, byteLength) => {
      const offset = place(attribute, byteLength);
      if (offset === undefined) return 7;
      copy(value, algorithm + offset, byteLength);
      return 0;
    },
    cublasLtMatmulAlgoConfigSetAttribute: (algorithm, attribute, value, byteLength) => {
      const offset = place(attribute, byteLength);
      if (offset === undefined) return 7;
      if (attribute === 8 && new Uint8Array(viewMemory(value, 1))[0] === refusedCluster) return 7;
      copy(algorithm + offset, value, byteLength);
      return 0;
    },
    cublasLtMatmulAlgoCapGetAttribute: (_algorithm, attribute, value, byteLength) => {
      if (attribute !== 7 || byteLength !== 4) return 7;
      new Int32Array(viewMemory(value, 4))[0] = customOptionMax;
      return 0;
    },
  };
}

it("changes clusters, the order of tiles and the algorithm's option, and nothing else", () => {
  const own = new Uint8Array(64).map((_, index) => index + 100);
  own.fill(0, 8, 12);
  own.fill(0, 16, 20);
  own.set([3, 0], 24);
  const variants = variantsOf(standIn(2, 7), own);
  const settings = variants.map((bytes) => [bytes[24], bytes[8], bytes[16]].join(" "));
  const clusters = [2, 3, 4, 5, 6, 8, 9].flatMap((cluster) => [`${cluster} 0 0`, `${cluster} 1 0`]);
  expect(settings).toEqual([...clusters.filter((text) => text !== "3 0 0"), "3 0 1", "3 0 2"]);
  for (const bytes of variants) {
    const rest = (all: Uint8Array): number[] => [...all].filter((_, index) => ![8, 16, 24].includes(index));
    expect(rest(bytes)).toEqual(rest(own));
  }
});

it("leaves few of an algorithm with very many options", () => {
  const found = settingsBeside({ swizzling: 1, customOption: 5, clusterShape: 0 }, 1000);
  expect(found.filter(({ customOption }) => customOption !== 5)).toHaveLength(7);
  expect(found).toHaveLength(16 + 7);
});

it("takes sums in another order for the same product, and a wrong tile for another", () => {
  const values = Float64Array.from({ length: 1000 }, (_, index) => Math.sin(index) * 60);
  const rounded = values.map((value, index) => value * (1 + (index % 2 === 0 ? 1 : -1) / 256));
  expect(isSameProduct(values, rounded)).toBe(true);
  expect(isSameProduct(values, rounded.with(500, 0))).toBe(false);
  expect(isSameProduct(values, rounded.with(500, Number.NaN))).toBe(false);
  expect(isSameProduct(values.with(3, Infinity), rounded.with(3, Number.NaN))).toBe(true);
});
