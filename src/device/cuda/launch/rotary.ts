/** Launcher of rotary. */
import { addressOf, f32, floatDtype, i32, i64, perFloat, pointer, type CudaKernels } from "../launcher.ts";
import { allowsPacks, ceilDiv, overlapping, packSize } from "./grid.ts";

const file = "rotary.cu";
const packsKernels = perFloat(file, "rotary_packs");
const singlesKernels = perFloat(file, "rotary_singles");
const restKernels = perFloat(file, "rotary_rest");

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
} satisfies CudaKernels;
