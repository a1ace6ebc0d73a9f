/** Launcher of crossEntropy. */
import { f32, floatDtype, i32, i64, perFloat, pointer, type CudaKernels } from "../launcher.ts";

const crossEntropyKernels = perFloat("cross_entropy.cu", "cross_entropy");

const threads = 1024;

export const lossKernels = {
  crossEntropy: (context, args) => {
    const { logits, targets, rowScales, losses, numRows, vocabSize } = args;
    const { ignoreIndex, writeGradient, gradientScale } = args;
    const kernels = crossEntropyKernels[floatDtype("crossEntropy", logits)];
    context.launch(kernels, { grid: numRows, block: threads }, [
      pointer(logits),
      pointer(targets),
      pointer(rowScales),
      pointer(losses),
      i64(vocabSize),
      i32(ignoreIndex),
      i32(writeGradient),
      f32(gradientScale),
    ]);
  },
} satisfies CudaKernels;
