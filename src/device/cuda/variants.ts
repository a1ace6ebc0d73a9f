/**
 * Settings of a cuBLASLt algorithm and the settings next to them that are worth a try: the clusters in which blocks share what they
 * read, the order of tiles, and the algorithm's own option. The library recommends few of these, and by a model of the card rather than
 * by its clock under load. Knows the bytes of an algorithm only through the library's own functions.
 * Source: cublasLt.h (cublasLtMatmulAlgoConfigAttributes_t, cublasLtClusterShape_t, cublasLtMatmulAlgoCapAttributes_t).
 */
import { NativeWords, type Functions } from "./native.ts";

export const configTable = {
  cublasLtMatmulAlgoConfigGetAttribute: ["pointer", "int", "pointer", "size", "pointer"],
  cublasLtMatmulAlgoConfigSetAttribute: ["pointer", "int", "pointer", "size"],
  cublasLtMatmulAlgoCapGetAttribute: ["pointer", "int", "pointer", "size", "pointer"],
} as const;
export type ConfigFunctions = Functions<typeof configTable>;

/** Attribute numbers and sizes in bytes. */
const attributes = {
  swizzling: [4, 4],
  customOption: [5, 4],
  clusterShape: [8, 2],
} as const;
const capabilityCustomOptionMax = 7;

export interface AlgorithmSettings {
  /** Order of tiles: 0 or 1. */
  readonly swizzling: number;
  /** What the algorithm makes of it; 0 to its own maximum. */
  readonly customOption: number;
  /** cublasLtClusterShape_t; 0 leaves it to the library. */
  readonly clusterShape: number;
}

/** 1x1, 2x1, 4x1, 1x2, 2x2, 4x2, 1x4, 2x4: larger ones leave multiprocessors of a GPC idle. */
const clusterShapes = [2, 3, 4, 5, 6, 7, 8, 9] as const;
const mostCustomOptions = 8;

/** Other settings of the same algorithm: every cluster in either order of tiles, and each custom option by itself. */
export function settingsBeside(own: AlgorithmSettings, customOptionMax: number): AlgorithmSettings[] {
  const found: AlgorithmSettings[] = [];
  for (const clusterShape of clusterShapes)
    for (const swizzling of [0, 1])
      if (clusterShape !== own.clusterShape || swizzling !== own.swizzling)
        found.push({ ...own, clusterShape, swizzling });
  for (let customOption = 0; customOption <= Math.min(customOptionMax, mostCustomOptions - 1); customOption++)
    if (customOption !== own.customOption) found.push({ ...own, customOption });
  return found;
}

/** The bytes of an algorithm with the settings beside its own, unchecked: the library may refuse them. */
export function variantsOf(functions: ConfigFunctions, bytes: Uint8Array): Uint8Array<ArrayBuffer>[] {
  const words = new NativeWords(bytes.byteLength / 8 + 2);
  const value = words.address + bytes.byteLength;
  const [valueIndex, writtenIndex] = [bytes.byteLength / 8, bytes.byteLength / 8 + 1];
  const written = words.address + writtenIndex * 8;
  words.bytes.set(bytes);
  type Getter = "cublasLtMatmulAlgoConfigGetAttribute" | "cublasLtMatmulAlgoCapGetAttribute";
  /** Zero where the library does not tell. */
  const read = (call: Getter, attribute: number, byteLength: number): number => {
    words.setWord(valueIndex, 0);
    const status = functions[call](words.address, attribute, value, byteLength, written);
    return status === 0 ? words.word(valueIndex) : 0;
  };
  const setting = (name: keyof AlgorithmSettings): number => {
    const [attribute, byteLength] = attributes[name];
    return read("cublasLtMatmulAlgoConfigGetAttribute", attribute, byteLength);
  };
  const own: AlgorithmSettings = {
    swizzling: setting("swizzling"),
    customOption: setting("customOption"),
    clusterShape: setting("clusterShape"),
  };
  const customOptionMax = read("cublasLtMatmulAlgoCapGetAttribute", capabilityCustomOptionMax, 4);
  return settingsBeside(own, customOptionMax).flatMap((settings) => {
    words.bytes.set(bytes);
    for (const name of ["swizzling", "customOption", "clusterShape"] as const) {
      const [attribute, byteLength] = attributes[name];
      words.setWord(valueIndex, settings[name]);
      const status = functions.cublasLtMatmulAlgoConfigSetAttribute(
        words.address,
        attribute,
        value,
        byteLength,
      );
      if (status !== 0) return [];
    }
    return [words.bytes.slice(0, bytes.byteLength)];
  });
}
