/** The paged cache's memory: keys and values of every layer, a slot a token. */
import { dtypeBytes } from "../../base/index.ts";
import type { Decoder } from "../../models/index.ts";
import { Storage, Tensor } from "../../tensor/index.ts";
import type { Context, PagedLayerCache } from "../../tensor/index.ts";

/** Throws OutOfMemoryError, holding nothing then. */
export function allocateCaches(
  context: Context,
  decoder: Decoder,
  { numBlocks, blockSize }: { numBlocks: number; blockSize: number },
): PagedLayerCache[] {
  const { numKvHeads, headDim, numLayers } = decoder.config;
  const shape = [numBlocks * blockSize, numKvHeads, headDim];
  const byteLength = shape[0] * numKvHeads * headDim * dtypeBytes(decoder.dtype);
  const made: Tensor[] = [];
  const half = (): Tensor => {
    const y = new Tensor(new Storage(context.device.allocate(byteLength)), { shape, dtype: decoder.dtype });
    made.push(y);
    // Rows of a batch that stand for nothing read here: they must find numbers.
    context.device.run("fill", { y, numElements: y.numElements, value: 0 });
    return y;
  };
  try {
    return Array.from({ length: numLayers }, () => ({ keys: half(), values: half() }));
  } catch (error) {
    for (const tensor of made) tensor.dispose();
    throw error;
  }
}
