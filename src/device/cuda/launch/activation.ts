/** Launchers of the pointwise activations, plain and gated. */
import { floatDtype, i32, i64, perFloat, pointer, type CudaKernels } from "../launcher.ts";
import { allowsPacks, ceilDiv, overlapping, packSize } from "./grid.ts";
import { launchRowCodes, rowFamily } from "./rowCodes.ts";

const file = "activation.cu";
const forwardKernels = perFloat(file, "activation_forward");
const fewForwardKernels = perFloat(file, "activation_forward_few");
const backwardKernels = perFloat(file, "activation_backward");
const gatedForwardKernels = perFloat(file, "gated_forward");
const codesKernels = rowFamily("activationCodes", file, "activation_codes");
const gatedBackwardKernels = perFloat(file, "gated_backward");

const threads = 256;
/** activation.cu: packs_per_block. */
const packsPerBlock = threads * 4;
/** Up to so many blocks of one pack a thread, all of them run at once. */
const mostFewBlocksPerMultiprocessor = 4;
/** Packs of a gated activation per thread. */
const gatedPacksPerThread = 2;

export const activationKernels = {
  activationForward: (context, { x, y, numElements, kind }) => {
    const dtype = floatDtype("activationForward", x);
    const numPacks = numElements / packSize(x);
    const fewBlocks = ceilDiv(numPacks, threads);
    const isFew = fewBlocks <= mostFewBlocksPerMultiprocessor * context.multiprocessorCount;
    if (isFew && allowsPacks([x, y], [numElements])) {
      context.launch(fewForwardKernels[dtype], overlapping(context, { grid: fewBlocks, block: threads }), [
        pointer(x),
        pointer(y),
        i32(numPacks),
        i32(kind),
      ]);
      return;
    }
    const grid = ceilDiv(numPacks, packsPerBlock);
    context.launch(forwardKernels[dtype], overlapping(context, { grid, block: threads }), [
      pointer(x),
      pointer(y),
      i64(numElements),
      i32(kind),
    ]);
  },

  activationBackward: (context, { x, dy, dx, numElements, kind }) => {
    const grid = ceilDiv(numElements, packsPerBlock * packSize(x));
    context.launch(backwardKernels[floatDtype("activationBackward", x)], { grid, block: threads }, [
      pointer(x),
      pointer(dy),
      pointer(dx),
      i64(numElements),
      i32(kind),
    ]);
  },

  gatedActivationForward: (context, { x, y, numRows, width, kind }) => {
    const grid = ceilDiv(numRows * width, threads * gatedPacksPerThread * packSize(x));
    const shape = overlapping(context, { grid, block: threads });
    context.launch(gatedForwardKernels[floatDtype("gatedActivationForward", x)], shape, [
      pointer(x),
      pointer(undefined),
      pointer(y),
      i64(numRows),
      i64(width),
      i32(kind),
    ]);
  },

  activationCodes: (context, { kind, gated, ...rows }) => {
    const xRowStride = gated === 1 ? 2 * rows.width : rows.width;
    launchRowCodes(context, codesKernels, { ...rows, xRowStride }, [kind, gated]);
  },

  gatedActivationBackward: (context, { x, dy, dx, numRows, width, kind }) => {
    const grid = ceilDiv(numRows * width, threads * gatedPacksPerThread * packSize(x));
    const kernels = gatedBackwardKernels[floatDtype("gatedActivationBackward", x)];
    context.launch(kernels, { grid, block: threads }, [
      pointer(x),
      pointer(dy),
      pointer(dx),
      i64(numRows),
      i64(width),
      i32(kind),
    ]);
  },
} satisfies CudaKernels;
