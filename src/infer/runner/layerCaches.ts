/** The paged cache's memory: keys and values of every layer, a slot a token. */
import { dtypeBytes, formatBytes, OutOfMemoryError } from "../../base/index.ts";
import type { Dtype } from "../../base/index.ts";
import { cacheBytesPerToken } from "../../models/index.ts";
import type { CacheFormat, Decoder } from "../../models/index.ts";
import { Storage, Tensor } from "../../tensor/index.ts";
import type { Context, PagedLayerCache } from "../../tensor/index.ts";

/** Throws OutOfMemoryError, holding nothing then. */
export function allocateCaches(
  context: Context,
  decoder: Decoder,
  { numBlocks, blockSize, kvCache }: { numBlocks: number; blockSize: number; kvCache: CacheFormat },
): PagedLayerCache[] {
  const { numKvHeads, headDim, numLayers } = decoder.config;
  const numSlots = numBlocks * blockSize;
  const made: Tensor[] = [];
  const filled = (shape: readonly number[], dtype: Dtype): Tensor => {
    const numElements = shape.reduce((product, size) => product * size, 1);
    const storage = new Storage(context.device.allocate(numElements * dtypeBytes(dtype)));
    const y = new Tensor(storage, { shape, dtype });
    made.push(y);
    // Rows of a batch that stand for nothing read here: they must find numbers.
    context.device.run("fill", { y, numElements, value: 0 });
    return y;
  };
  const half = (): Tensor =>
    filled([numSlots, numKvHeads, headDim], kvCache === "fp8" ? "u8" : decoder.dtype);
  const scales = (): Tensor => filled([numKvHeads, numSlots], "f32");
  const layer = (): PagedLayerCache =>
    kvCache === "fp8"
      ? { keys: half(), values: half(), keyScales: scales(), valueScales: scales() }
      : { keys: half(), values: half() };
  try {
    return Array.from({ length: numLayers }, layer);
  } catch (error) {
    for (const tensor of made) tensor.dispose();
    if (!(error instanceof OutOfMemoryError)) throw error;
    const neededBytes = numSlots * cacheBytesPerToken(decoder.config, decoder.dtype, kvCache);
    const { freeBytes } = context.device.memory();
    throw new OutOfMemoryError(
      "engine",
      `expected ${formatBytes(neededBytes)} of memory for keys and values of ${numSlots} tokens, got ${freeBytes === undefined ? "less" : formatBytes(freeBytes)}`,
      {
        hint: `lower --cache-tokens${kvCache === "fp8" ? "" : ", or hold them in 8 bits with --kv-cache fp8"}`,
        cause: error,
        fields: { neededBytes },
      },
    );
  }
}
