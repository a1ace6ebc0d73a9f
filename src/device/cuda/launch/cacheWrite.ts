/** Launchers of what writes a paged cache without turning anything: kvCacheWrite, kvCacheCopy, and rows into a cache of E4M3 codes. */
import { DtypeError, dtypeBytes, invariant } from "../../../base/index.ts";
import type { OpArguments, TensorArgument } from "../../contract.ts";
import type { OpName } from "../../ops.ts";
import {
  floatDtype,
  i32,
  i64,
  kernel,
  perFloat,
  pointer,
  type CudaKernels,
  type LaunchContext,
} from "../launcher.ts";
import { ceilDiv, overlapping, packSize } from "./grid.ts";

const cacheWrite = perFloat("kv_cache.cu", "kv_cache_write");
const codesWrite = perFloat("kv_cache_codes.cu", "kv_cache_write_codes");
const cacheCopy = kernel({ file: "kv_cache_copy.cu", entry: "kv_cache_copy" });

const threads = 256;
/** kv_cache_codes.cu: a warp a head of a row. */
const headsPerBlock = threads / 32;

type Caches = Pick<OpArguments<"kvCacheWrite">, "kCache" | "vCache" | "kScales" | "vScales">;

/** The dtype of an operator's float tensors, and whether its caches hold codes. Throws DtypeError. */
export function cachedDtypes(
  op: OpName,
  floats: readonly TensorArgument[],
  { kCache, vCache, kScales, vScales }: Caches,
): { dtype: "f32" | "bf16"; hasCodes: boolean } {
  const dtype = floatDtype(op, floats[0]);
  const hasCodes = kCache.dtype === "u8";
  const expected = hasCodes ? "u8" : dtype;
  const other =
    floats.find((tensor) => tensor.dtype !== dtype) ??
    [kCache, vCache].find((tensor) => tensor.dtype !== expected);
  if (other !== undefined)
    throw new DtypeError(
      "cuda",
      `expected ${dtype} and caches of ${dtype} or both of u8 for ${op}, got ${other.dtype}`,
    );
  invariant(
    (kScales !== undefined) === hasCodes && (vScales !== undefined) === hasCodes,
    `${op} with scales exactly where the caches are u8`,
  );
  return { dtype, hasCodes };
}

/** Rows of keys and values as codes; with `q`, both rotary. */
export function writeCodes(
  context: LaunchContext,
  dtype: "f32" | "bf16",
  args: OpArguments<"kvCacheWrite"> & Partial<OpArguments<"rotaryCacheWrite">>,
): void {
  const { q, k, v, positions, cosSin, slots, kCache, vCache, kScales, vScales } = args;
  const { numRows, numSlots, numHeads = 0, numKvHeads, headDim, rotaryDim = 0, qRowStride = 0 } = args;
  const grid = ceilDiv(numRows * (numHeads + 2 * numKvHeads), headsPerBlock);
  context.launch(codesWrite[dtype], overlapping(context, { grid, block: threads }), [
    ...[q, k, v, positions, cosSin, slots, kCache, vCache, kScales, vScales].map(pointer),
    i64(numRows),
    i64(numSlots),
    i64(qRowStride),
    i64(args.kRowStride),
    i64(args.vRowStride),
    i32(numHeads),
    i32(numKvHeads),
    i32(headDim),
    i32(rotaryDim),
  ]);
}

export const cacheWriteKernels = {
  kvCacheWrite: (context, args) => {
    const { k, v, slots, kCache, vCache, numRows, numKvHeads, headDim, kRowStride, vRowStride } = args;
    const { dtype, hasCodes } = cachedDtypes("kvCacheWrite", [k, v], args);
    if (hasCodes) {
      writeCodes(context, dtype, args);
      return;
    }
    const width = numKvHeads * headDim;
    const grid = ceilDiv(numRows * ceilDiv(width, packSize(k)), threads);
    context.launch(cacheWrite[dtype], overlapping(context, { grid, block: threads }), [
      ...[k, v, slots, kCache, vCache].map(pointer),
      i64(numRows),
      i64(kRowStride),
      i64(vRowStride),
      i32(width),
    ]);
  },

  kvCacheCopy: (context, args) => {
    const { sources, slots, kCache, vCache, kScales, vScales, numRows, numKvHeads, headDim } = args;
    invariant(kCache.dtype === vCache.dtype, "keys and values of one dtype in a cache");
    const slotBytes = numKvHeads * headDim * dtypeBytes(kCache.dtype);
    context.launch(cacheCopy, overlapping(context, { grid: [numRows, 2], block: threads }), [
      ...[sources, slots, kCache, vCache, kScales, vScales].map(pointer),
      i64(numRows),
      i64(args.numSlots),
      i64(slotBytes),
      i32(numKvHeads),
    ]);
  },
} satisfies CudaKernels;
