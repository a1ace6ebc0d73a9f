/**
 * Reference: what a paged cache holds of a head. Floats as they are; or E4M3 codes with a scale for each slot and head, as quantiseRows makes them of
 * a head's vector. Scales (G, numSlots).
 */
import { invariant } from "../../base/index.ts";
import type { TensorArgument } from "../contract.ts";
import { e4m3ValueOf, quantiseE4m3 } from "./float8.ts";
import { read, roundedTo, write } from "./memory.ts";

/** Keys or values of a cache. */
interface CachedHeads {
  readonly cache: TensorArgument;
  readonly scales: TensorArgument | undefined;
  readonly numSlots: number;
  readonly numKvHeads: number;
  readonly headDim: number;
}

interface CacheArguments {
  readonly kCache: TensorArgument;
  readonly vCache: TensorArgument;
  readonly kScales?: TensorArgument | undefined;
  readonly vScales?: TensorArgument | undefined;
  readonly numSlots: number;
  readonly numKvHeads: number;
  readonly headDim: number;
}

/** The two halves of a cache. Throws InvariantError where scales are missing, or are there beside floats. */
export function cachedHeads(args: CacheArguments): { keys: CachedHeads; values: CachedHeads } {
  const { kCache, vCache, kScales, vScales, numSlots, numKvHeads, headDim } = args;
  const hasCodes = kCache.dtype === "u8";
  invariant((vCache.dtype === "u8") === hasCodes, "keys and values of one kind in a cache");
  invariant(
    (kScales !== undefined) === hasCodes && (vScales !== undefined) === hasCodes,
    "scales exactly where a cache is u8",
  );
  const sizes = { numSlots, numKvHeads, headDim };
  return {
    keys: { cache: kCache, scales: kScales, ...sizes },
    values: { cache: vCache, scales: vScales, ...sizes },
  };
}

/** The heads (G, D) of `numTokens` slots from `slot` on, one after the other. */
export function readSlots(
  { cache, scales, numSlots, numKvHeads, headDim }: CachedHeads,
  slot: number,
  numTokens: number,
): Float64Array {
  const width = numKvHeads * headDim;
  const stored = read(cache, numTokens * width, slot * width);
  if (scales === undefined) return stored;
  for (let head = 0; head < numKvHeads; head++) {
    const own = read(scales, numTokens, head * numSlots + slot);
    for (const [token, scale] of own.entries()) {
      const begin = token * width + head * headDim;
      for (let i = begin; i < begin + headDim; i++) stored[i] = scale * e4m3ValueOf(stored[i]);
    }
  }
  return stored;
}

/** Stores heads (G, D), of numbers of `dtype`, in a slot. */
export function writeSlot(
  { cache, scales, numSlots, numKvHeads, headDim }: CachedHeads,
  slot: number,
  { heads, dtype }: { heads: Float64Array; dtype: TensorArgument["dtype"] },
): void {
  const width = numKvHeads * headDim;
  if (scales === undefined) {
    write(cache, heads, slot * width);
    return;
  }
  const rounded = roundedTo(dtype, heads);
  for (let head = 0; head < numKvHeads; head++) {
    const { scale, codes } = quantiseE4m3(rounded.subarray(head * headDim, (head + 1) * headDim));
    write(scales, [scale], head * numSlots + slot);
    write(cache, codes, slot * width + head * headDim);
  }
}
