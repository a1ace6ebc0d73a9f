/**
 * Launchers of attentionForward and attentionBackward, and of the tiled kernel over a paged cache. bf16 heads of up to 256 whole packs
 * run on the tensor cores; everything else takes attention_any.cu.
 */
import { DtypeError, UnsupportedOpError } from "../../../base/index.ts";
import type { OpArguments, TensorArgument } from "../../contract.ts";
import type { OpName } from "../../ops.ts";
import {
  address,
  f32,
  floatDtype,
  i32,
  i64,
  kernel,
  perFloat,
  pointer,
  type CudaKernels,
  type KernelParameter,
  type KernelReference,
  type LaunchContext,
} from "../launcher.ts";
import { allowsPacks, ceilDiv } from "./grid.ts";

type ForwardArguments = OpArguments<"attentionForward">;
type BackwardArguments = OpArguments<"attentionBackward">;

/** A kernel for heads of up to `headDim` components. */
interface Padded {
  readonly headDim: number;
}
interface ForwardKernel extends Padded {
  readonly kernel: KernelReference;
  /** Query rows of a block. */
  readonly blockRows: number;
}
interface BackwardKernels extends Padded {
  readonly deltas: KernelReference;
  readonly keyGradient: KernelReference;
  readonly queryGradient: KernelReference;
}

const forwardThreads = 128;
/** attention_forward.cu: block_keys. */
const forwardKeys = 64;

/** Two row tiles per warp as long as the registers hold them. */
function declareForward(headDim: number, cache: "none" | "floats" | "codes"): ForwardKernel {
  const rowTiles = headDim <= 128 ? 2 : 1;
  const defines = {
    HEAD_DIM: headDim,
    ROW_TILES: rowTiles,
    PAGED: Number(cache !== "none"),
    CODES: Number(cache === "codes"),
  };
  return {
    headDim,
    kernel: kernel({ file: "attention_forward.cu", entry: "attention_forward", defines }),
    blockRows: 64 * rowTiles,
  };
}

const forwardKernels = [64, 128, 192, 256].map((headDim) => declareForward(headDim, "none"));
const pagedKernels = {
  floats: [64, 128, 256].map((headDim) => declareForward(headDim, "floats")),
  codes: [64, 128, 256].map((headDim) => declareForward(headDim, "codes")),
} as const;
const backwardKernels = [64, 128, 192, 256].map((headDim): BackwardKernels => {
  const declare = (entry: string): KernelReference =>
    kernel({ file: "attention_backward.cu", entry, defines: { HEAD_DIM: headDim } });
  return {
    headDim,
    deltas: declare("attention_deltas"),
    keyGradient: declare("attention_key_gradient"),
    queryGradient: declare("attention_query_gradient"),
  };
});

const anyFile = "attention_any.cu";
const forwardAny = perFloat(anyFile, "attention_forward_any");
const queryGradientAny = perFloat(anyFile, "attention_query_gradient_any");
const keyGradientAny = perFloat(anyFile, "attention_key_gradient_any");
const anyThreads = 128;
/** attention_any.cu: 32 lanes of 16 components. */
export const largestHeadDim = 512;

/** The tightest kernel for the head size, where every access is a whole pack. */
function fitting<Kernel extends Padded>(
  kernels: readonly Kernel[],
  tensors: readonly (TensorArgument | undefined)[],
  { headDim, strides }: { headDim: number; strides: readonly number[] },
): Kernel | undefined {
  if (!allowsPacks(tensors, [headDim, ...strides])) return undefined;
  return kernels.find((candidate) => candidate.headDim >= headDim);
}

/** The common dtype of an attention operator's tensors. Throws DtypeError, UnsupportedOpError. */
function attentionDtype(op: OpName, tensors: readonly TensorArgument[], headDim: number): "f32" | "bf16" {
  const dtype = floatDtype(op, tensors[0]);
  const other = tensors.find((tensor) => tensor.dtype !== dtype);
  if (other !== undefined)
    throw new DtypeError("cuda", `expected one dtype for ${op}, got ${dtype} and ${other.dtype}`);
  if (headDim > largestHeadDim)
    throw new UnsupportedOpError(
      "cuda",
      `expected heads of at most ${largestHeadDim} for ${op}, got ${headDim}`,
    );
  return dtype;
}

function sizes(args: ForwardArguments | BackwardArguments): KernelParameter[] {
  return [
    i64(args.numRows),
    i64(args.qRowStride),
    i64(args.kRowStride),
    i64(args.vRowStride),
    i64(args.oRowStride),
    i32(args.queryLength),
    i32(args.keyLength),
    i32(args.numHeads),
    i32(args.numKvHeads),
    i32(args.headDim),
    i32(args.causal),
  ];
}

function stridesOf(args: ForwardArguments | BackwardArguments): number[] {
  return [args.qRowStride, args.kRowStride, args.vRowStride, args.oRowStride];
}

/** attention_forward.cu reads rows here, or the slots of a paged cache. */
function launchForward(
  context: LaunchContext,
  { kernel: reference, headDim, blockRows }: ForwardKernel,
  options: {
    queryLength: number;
    numHeads: number;
    numSequences: number;
    parameters: readonly KernelParameter[];
    hasCodes?: boolean;
  },
): void {
  const { queryLength, numHeads, numSequences, parameters, hasCodes = false } = options;
  const codesBytes = hasCodes ? 2 * forwardKeys * headDim : 0;
  const shape = {
    grid: [ceilDiv(queryLength, blockRows), numHeads, numSequences],
    block: forwardThreads,
    sharedBytes: (blockRows + 2 * forwardKeys) * headDim * 2 + codesBytes,
  } as const;
  context.launch(reference, shape, parameters);
}

/**
 * Keys and values in the slots of a cache, whose codes are copied 16 at a time; sequences with one query row are left to the decoding
 * kernel.
 */
export function forwardPaged(
  context: LaunchContext,
  args: OpArguments<"attentionPaged">,
  blockShift: number,
): void {
  const { q, kCache, vCache, o, headDim, numHeads, numKvHeads, numSequences } = args;
  const hasCodes = kCache.dtype === "u8";
  const kernels = hasCodes ? pagedKernels.codes : pagedKernels.floats;
  const found = kernels.find((candidate) => candidate.headDim >= headDim);
  if (found === undefined)
    throw new UnsupportedOpError("cuda", `expected heads of at most 256 for a paged cache, got ${headDim}`);
  const slotStride = numKvHeads * headDim;
  const parameters = [
    pointer(q),
    pointer(kCache),
    pointer(vCache),
    pointer(args.queryStarts),
    pointer(o),
    pointer(undefined),
    pointer(args.blockTables),
    pointer(args.contextLengths),
    i64(0),
    i64(args.qRowStride),
    i64(slotStride),
    i64(slotStride),
    i64(args.oRowStride),
    i32(0),
    i32(0),
    i32(numHeads),
    i32(numKvHeads),
    i32(headDim),
    i32(1),
    i32(args.blockSize),
    i32(blockShift),
    i32(args.maxBlocksPerSequence),
    f32(args.scale * Math.LOG2E),
    ...(hasCodes ? [pointer(args.kScales), pointer(args.vScales), i64(args.numSlots)] : []),
  ];
  const sizes = { queryLength: args.maxQueryLength, numHeads, numSequences };
  launchForward(context, found, { ...sizes, parameters, hasCodes });
}

function backwardTiled(
  context: LaunchContext,
  args: BackwardArguments,
  { headDim, deltas, keyGradient, queryGradient }: BackwardKernels,
): void {
  const { numRows, numHeads, numKvHeads, numSequences, queryLength, keyLength } = args;
  const { q, k, v, o, doutput, logSumExp, cuSeqLens, dq, dk, dv } = args;
  const parameters = [
    ...[q, k, v, o, doutput, logSumExp, cuSeqLens, dq, dk, dv].map(pointer),
    address(context.workspace(numRows * numHeads * 4)),
    ...sizes(args),
    f32(args.scale),
  ];
  // The constants of attention_backward.cu.
  const isWide = headDim > 128;
  const deltaLanes = headDim === 64 ? 8 : headDim === 128 ? 16 : 32;
  const rowBytes = headDim * 2;
  context.launch(deltas, { grid: ceilDiv(numRows * numHeads * deltaLanes, 256), block: 256 }, parameters);
  const [keyRows, keyQueries] = isWide ? [64, 32] : [128, 64];
  context.launch(
    keyGradient,
    {
      grid: [ceilDiv(keyLength, keyRows), numKvHeads, numSequences],
      block: 256,
      sharedBytes: (2 * keyRows + 4 * keyQueries) * rowBytes + 4 * keyQueries * 4,
    },
    parameters,
  );
  const [queryRows, queryKeys] = isWide ? [64, 32] : [128, 64];
  context.launch(
    queryGradient,
    {
      grid: [ceilDiv(queryLength, queryRows), numHeads, numSequences],
      block: 2 * queryRows,
      sharedBytes: (2 * queryRows + 4 * queryKeys) * rowBytes,
    },
    parameters,
  );
}

/** The parameters of attention_any.cu; results first, second and log-sum-exp. */
function anyParameters(
  args: ForwardArguments | BackwardArguments,
  results: readonly (TensorArgument | undefined)[],
): KernelParameter[] {
  const { q, k, v, o, cuSeqLens } = args;
  const doutput = "doutput" in args ? args.doutput : undefined;
  return [
    ...[q, k, v, o, doutput, args.logSumExp, cuSeqLens, results[0], results[1], results[2]].map(pointer),
    ...sizes(args),
    f32(args.scale),
  ];
}

export const attentionKernels = {
  attentionForward: (context, args) => {
    const { q, k, v, o, logSumExp, cuSeqLens, headDim, numSequences, queryLength, numHeads } = args;
    const dtype = attentionDtype("attentionForward", [q, k, v, o], headDim);
    const found =
      dtype === "bf16"
        ? fitting(forwardKernels, [q, k, v, o], { headDim, strides: stridesOf(args) })
        : undefined;
    if (found === undefined) {
      const shape = {
        grid: [queryLength, numHeads, numSequences],
        block: anyThreads,
        sharedBytes: headDim * 4,
      } as const;
      context.launch(forwardAny[dtype], shape, anyParameters(args, [o, undefined, logSumExp]));
      return;
    }
    const parameters = [
      ...[q, k, v, cuSeqLens, o, logSumExp, undefined, undefined].map(pointer),
      ...sizes(args),
      i32(0),
      i32(0),
      i32(0),
      f32(args.scale * Math.LOG2E),
    ];
    launchForward(context, found, { queryLength, numHeads, numSequences, parameters });
  },

  attentionBackward: (context, args) => {
    const { q, k, v, o, doutput, dq, dk, dv, headDim, numSequences, numHeads, numKvHeads } = args;
    const tensors = [q, k, v, o, doutput, dq, dk, dv];
    const dtype = attentionDtype("attentionBackward", tensors, headDim);
    const found =
      dtype === "bf16" ? fitting(backwardKernels, tensors, { headDim, strides: stridesOf(args) }) : undefined;
    if (found !== undefined) {
      backwardTiled(context, args, found);
      return;
    }
    const common = { block: anyThreads, sharedBytes: headDim * 4 };
    context.launch(
      queryGradientAny[dtype],
      { ...common, grid: [args.queryLength, numHeads, numSequences] },
      anyParameters(args, [dq]),
    );
    context.launch(
      keyGradientAny[dtype],
      { ...common, grid: [args.keyLength, numKvHeads, numSequences] },
      anyParameters(args, [dk, dv]),
    );
  },
} satisfies CudaKernels;
