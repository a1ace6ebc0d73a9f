/** Launchers of rotary, alone and into a paged cache. */
import { addressOf, f32, floatDtype, i32, i64, perFloat, pointer, type CudaKernels } from "../launcher.ts";
import { cachedDtypes, writeCodes } from "./cacheWrite.ts";
import { allowsPacks, ceilDiv, overlapping, packSize, wholeWarps } from "./grid.ts";

const file = "rotary.cu";
const packsKernels = perFloat(file, "rotary_packs");
const singlesKernels = perFloat(file, "rotary_singles");
const restKernels = perFloat(file, "rotary_rest");
const cachePacksKernels = perFloat(file, "rotary_cache_write_packs");
const cacheSinglesKernels = perFloat(file, "rotary_cache_write_singles");

const threads = 256;
/** Heads that share a thread's angles, where there are rows enough to fill the GPU. */
const mostHeadsPerThread = 4;

export const rotaryKernels = {
  rotary: (context, args) => {
    const { x, positions, cosSin, y, numRows, numHeads, headDim, rotaryDim, inverse } = args;
    const { xRowStride, yRowStride } = args;
    const dtype = floatDtype("rotary", x);
    const usesPacks = allowsPacks([x, y], [xRowStride, yRowStride, headDim, rotaryDim / 2]);
    const pairsPerHead = usesPacks ? rotaryDim / 2 / packSize(x) : rotaryDim / 2;
    const fillsGpu = numRows * numHeads * pairsPerHead >= 512 * context.multiprocessorCount;
    const headsPerThread = usesPacks && fillsGpu ? mostHeadsPerThread : 1;
    const parameters = [
      pointer(x),
      pointer(positions),
      pointer(cosSin),
      pointer(y),
      i64(numRows),
      i64(xRowStride),
      i64(yRowStride),
      i32(numHeads),
      i32(headDim),
      i32(rotaryDim),
      i32(headsPerThread),
      f32(inverse === 1 ? -1 : 1),
    ];
    const turning = numRows * ceilDiv(numHeads, headsPerThread) * pairsPerHead;
    const kernels = usesPacks ? packsKernels : singlesKernels;
    const grid = ceilDiv(turning, threads);
    context.launch(kernels[dtype], overlapping(context, { grid, block: threads }), parameters);
    if (addressOf(x) === addressOf(y) || rotaryDim === headDim) return;
    const resting = numRows * numHeads * (headDim - rotaryDim);
    context.launch(restKernels[dtype], { grid: ceilDiv(resting, threads), block: threads }, parameters);
  },

  rotaryCacheWrite: (context, args) => {
    const { q, k, v, positions, cosSin, slots, kCache, vCache, numRows, numHeads, numKvHeads } = args;
    const { headDim, rotaryDim, qRowStride, kRowStride, vRowStride } = args;
    const { dtype, hasCodes } = cachedDtypes("rotaryCacheWrite", [q, k, v], args);
    if (hasCodes) {
      writeCodes(context, dtype, args);
      return;
    }
    const usesPacks = allowsPacks(
      [q, k, v, kCache, vCache, cosSin],
      [qRowStride, kRowStride, vRowStride, headDim, rotaryDim / 2],
    );
    const lanes = usesPacks ? packSize(q) : 1;
    const turning = (numHeads + numKvHeads) * (rotaryDim / 2);
    const copied = numKvHeads * (headDim - rotaryDim + headDim);
    const perRow = (turning + copied) / lanes;
    const block = Math.min(threads, wholeWarps(perRow));
    const grid = [numRows, ceilDiv(perRow, block)] as const;
    const kernels = usesPacks ? cachePacksKernels : cacheSinglesKernels;
    context.launch(kernels[dtype], overlapping(context, { grid, block }), [
      ...[q, k, v, positions, cosSin, slots, kCache, vCache].map(pointer),
      i64(qRowStride),
      i64(kRowStride),
      i64(vRowStride),
      i32(numHeads),
      i32(numKvHeads),
      i32(headDim),
      i32(rotaryDim),
    ]);
  },
} satisfies CudaKernels;
