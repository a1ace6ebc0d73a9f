/** Launcher of crossEntropy. */
import { dtypeBytes } from "../../../base/index.ts";
import {
  f32,
  floatDtype,
  i32,
  i64,
  perFloat,
  pointer,
  type CudaKernels,
  type LaunchContext,
} from "../launcher.ts";

const crossEntropyKernels = perFloat("cross_entropy.cu", "cross_entropy");

const threads = 1024;
/** A step of cross_entropy.cu: packs_per_step packs of every thread. */
const packsPerStep = 4;
const stepBytes = 16 * packsPerStep * threads;

/** Steps of a row that wait in shared memory for its second pass. */
function keptSteps(context: LaunchContext, rowBytes: number): number {
  return Math.min(
    Math.ceil(rowBytes / stepBytes),
    Math.floor((context.sharedMemoryLimit - 1024) / stepBytes),
  );
}

export const lossKernels = {
  crossEntropy: (context, args) => {
    const { logits, targets, rowScales, losses, numRows, vocabSize } = args;
    const { ignoreIndex, writeGradient, gradientScale } = args;
    const kernels = crossEntropyKernels[floatDtype("crossEntropy", logits)];
    const rowBytes = vocabSize * dtypeBytes(logits.dtype);
    const numKeptSteps = writeGradient === 1 ? keptSteps(context, rowBytes) : 0;
    const sharedBytes = numKeptSteps * stepBytes;
    context.launch(kernels, { grid: numRows, block: threads, sharedBytes }, [
      pointer(logits),
      pointer(targets),
      pointer(rowScales),
      pointer(losses),
      i64(vocabSize),
      i32(ignoreIndex),
      i32(writeGradient),
      f32(gradientScale),
      i32(numKeptSteps),
    ]);
  },
} satisfies CudaKernels;
