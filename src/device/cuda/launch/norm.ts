/** Launchers of LayerNorm and RMSNorm, forward and backward. */
import type { OpArguments, TensorArgument } from "../../contract.ts";
import {
  address,
  addressOf,
  f32,
  floatDtype,
  i32,
  i64,
  perFloat,
  pointer,
  type CudaKernels,
  type KernelReference,
  type LaunchContext,
} from "../launcher.ts";
import { quantiseKernels } from "./quantise.ts";
import { allowsPacks, bf16Flags, ceilDiv, overlapping, packSize, wholeWarps } from "./grid.ts";
import { finishColumns } from "./reduce.ts";

type Variants = Readonly<Record<"f32" | "bf16", KernelReference>>;

interface Family {
  /** By packs per thread. */
  readonly packs: ReadonlyMap<number, Variants>;
  readonly any: Variants;
}

function family(file: string, prefix: string, packs: readonly number[]): Family {
  return { packs: packKernels(file, `${prefix}_packs`, packs), any: perFloat(file, `${prefix}_any`) };
}

function packKernels(file: string, prefix: string, packs: readonly number[], suffix = ""): Family["packs"] {
  return new Map(packs.map((count) => [count, perFloat(file, `${prefix}_${count}${suffix}`)]));
}

interface ForwardFamilies {
  readonly plain: Family;
  /** With the codes of the rows, which the kernel of any width leaves to another. */
  readonly withCodes: Family;
}

function forwardFamilies(prefix: string): ForwardFamilies {
  const [file, packs] = ["norm_forward.cu", [1, 2, 4]] as const;
  const plain = family(file, prefix, packs);
  return { plain, withCodes: { ...plain, packs: packKernels(file, `${prefix}_packs`, packs, "_codes") } };
}

const layerNormForward = forwardFamilies("layer_norm_forward");
const rmsNormForward = forwardFamilies("rms_norm_forward");
const layerNormBackward = family("norm_backward.cu", "layer_norm_backward", [1, 2]);
const rmsNormBackward = family("norm_backward.cu", "rms_norm_backward", [1, 2]);

const anyThreads = 256;
const mostThreads = 512;

/** How a row is spread over a block, no packs for a kernel of any width: few threads with several packs keep more loads under way per barrier. */
function planRow(
  kernels: Family,
  dtype: "f32" | "bf16",
  { numPacks, hasFewRows = false }: { numPacks: number | undefined; hasFewRows?: boolean },
): { kernel: KernelReference; block: number; packs: number } {
  if (numPacks !== undefined) {
    const preferred = numPacks <= 64 || hasFewRows ? 1 : 2;
    for (const [packs, variants] of kernels.packs) {
      const block = wholeWarps(ceilDiv(numPacks, packs));
      if (packs >= preferred && block <= mostThreads) return { kernel: variants[dtype], block, packs };
    }
  }
  return { kernel: kernels.any[dtype], block: anyThreads, packs: 0 };
}

type ForwardArguments = OpArguments<"rmsNormForward"> & {
  bias?: TensorArgument | undefined;
  mean?: TensorArgument | undefined;
};

function forward(context: LaunchContext, families: ForwardFamilies, args: ForwardArguments): void {
  const { x, addend, gain, bias, sum, y, mean, rstd, codes, scales, numRows, width, eps, gainOffset } = args;
  const op = "layerNormForward";
  const usesPacks = allowsPacks([x, addend, sum, y, gain, bias], [width]) && width > 0;
  const numPacks = usesPacks ? width / packSize(x) : undefined;
  const hasFewRows = numRows <= context.multiprocessorCount;
  const kernels = codes !== undefined && addressOf(codes) % 8 === 0 ? families.withCodes : families.plain;
  const plan = planRow(kernels, floatDtype(op, x), { numPacks, hasFewRows });
  const blocksPerMultiprocessor = Math.max(1, Math.min(16, Math.floor(1024 / plan.block)));
  const grid = Math.min(numRows, context.multiprocessorCount * blocksPerMultiprocessor);
  context.launch(plan.kernel, overlapping(context, { grid, block: plan.block }), [
    pointer(x),
    pointer(addend),
    pointer(gain),
    pointer(bias),
    pointer(sum),
    pointer(y),
    pointer(mean),
    pointer(rstd),
    pointer(codes),
    pointer(scales),
    i64(numRows),
    i32(width),
    i32(bf16Flags(op, { 1: gain, 2: bias })),
    f32(eps),
    f32(gainOffset),
  ]);
  const hasCodes = kernels === families.withCodes && plan.packs > 0;
  if (codes !== undefined && scales !== undefined && !hasCodes)
    quantiseKernels.quantiseRows(context, { x: y, codes, scales, numRows, width, xRowStride: width });
}

/** Rows of dy, x and dsum in shared memory at once: num_stages of norm_backward.cu. */
function ringRows(packs: number): number {
  return packs === 1 ? 4 : 2;
}

type BackwardArguments = OpArguments<"rmsNormBackward"> & {
  mean?: TensorArgument | undefined;
  dbias?: TensorArgument | undefined;
};

function backward(context: LaunchContext, kernels: Family, args: BackwardArguments): void {
  const { dy, x, gain, mean, rstd, dsum, dx, dgain, dbias, numRows, width, gainOffset } = args;
  if (numRows === 0 || width === 0) return;
  const op = "layerNormBackward";
  const usesPacks = allowsPacks([dy, x, dsum, dx, gain], [width]);
  const numPacks = usesPacks ? width / packSize(x) : undefined;
  const plan = planRow(kernels, floatDtype(op, x), { numPacks });
  const sharedBytes = 16 * 3 * plan.block * plan.packs * ringRows(plan.packs);
  const threads = plan.packs === 1 ? 1024 : 512;
  const blocksPerMultiprocessor = Math.max(1, Math.min(8, Math.floor(threads / plan.block)));
  const numBlocks = Math.min(numRows, context.multiprocessorCount * blocksPerMultiprocessor);
  const partialBytes = numBlocks * width * 4;
  const wanted = [dgain, dbias].filter((tensor) => tensor !== undefined).length;
  const dgainPartials = wanted === 0 ? 0 : context.workspace(wanted * partialBytes);
  const dbiasPartials = dgain === undefined ? dgainPartials : dgainPartials + partialBytes;
  context.launch(plan.kernel, { grid: numBlocks, block: plan.block, sharedBytes }, [
    pointer(dy),
    pointer(x),
    pointer(gain),
    pointer(mean),
    pointer(rstd),
    pointer(dsum),
    pointer(dx),
    address(dgain === undefined ? 0 : dgainPartials),
    address(dbias === undefined ? 0 : dbiasPartials),
    i64(numRows),
    i32(width),
    i32(bf16Flags(op, { 1: gain })),
    f32(gainOffset),
  ]);
  const ending = { numPartials: numBlocks, width, beta: 1 };
  if (dgain !== undefined) finishColumns(context, { ...ending, y: dgain, partials: dgainPartials });
  if (dbias !== undefined) finishColumns(context, { ...ending, y: dbias, partials: dbiasPartials });
}

export const normKernels = {
  layerNormForward: (context, args) => forward(context, layerNormForward, args),
  layerNormBackward: (context, args) => backward(context, layerNormBackward, args),
  rmsNormForward: (context, args) => forward(context, rmsNormForward, args),
  rmsNormBackward: (context, args) => backward(context, rmsNormBackward, args),
} satisfies CudaKernels;
