/**
 * Launchers of kvCacheWrite, attentionPaged and rotaryAttentionPaged. Sequences with one query row take the decoding kernel, others the tiled one; which of
 * them has what to do is read on the device, so the grids hang on maxima alone.
 */
import { DtypeError, invariant } from "../../../base/index.ts";
import type { OpArguments } from "../../contract.ts";
import {
  address,
  cudaTypes,
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
import { attentionDtype, forwardPaged } from "./attention.ts";
import { allowsPacks, ceilDiv, clamp, overlapping, packSize } from "./grid.ts";
import { rotaryKernels } from "./rotary.ts";

type PagedArguments = OpArguments<"attentionPaged">;
type RotaryPagedArguments = OpArguments<"rotaryAttentionPaged">;
/** What both operators have. */
type DecodeArguments = Omit<PagedArguments, "maxQueryLength">;

const cacheWrite = perFloat("kv_cache.cu", "kv_cache_write");

/** Padded head sizes of attention_decode.cu, and how many query heads of a group one block serves. */
const decodeHeadDims = [64, 128, 256] as const;
const decodeGroups = [1, 2, 4] as const;
type DecodeGroup = (typeof decodeGroups)[number];

/** How many threads read one share of a context, and what a share is worth. */
interface DecodeForm {
  readonly threads: number;
  /** Keys per lane and step. */
  readonly unroll: number;
  /** Blocks of it that a multiprocessor holds, by query heads of a block: more heads need more registers, and spill with less. */
  readonly residentBlocks: Readonly<Record<DecodeGroup, number>>;
  /** A further split of a context pays from this many tokens on. */
  readonly minSplitTokens: number;
}

/** Many sequences: the blocks themselves fill the GPU. Few: a short context is one step of one block, with no sums over splits. */
const decodeForms = {
  narrow: { threads: 128, unroll: 1, residentBlocks: { 1: 8, 2: 6, 4: 4 }, minSplitTokens: 64 },
  wide: { threads: 512, unroll: 2, residentBlocks: { 1: 1, 2: 1, 4: 1 }, minSplitTokens: 256 },
} as const satisfies Readonly<Record<string, DecodeForm>>;
type DecodeFormName = keyof typeof decodeForms;

type DecodeKernels = ReadonlyMap<string, KernelReference>;

function decodeFamily(dtype: "f32" | "bf16", name: string): DecodeKernels {
  const kernels = new Map<string, KernelReference>();
  for (const [form, { threads, unroll, residentBlocks }] of Object.entries(decodeForms))
    for (const headDim of decodeHeadDims)
      for (const group of decodeGroups)
        kernels.set(
          `${form} ${headDim} ${group}`,
          kernel({
            file: "attention_decode.cu",
            entry: `${name}_${group}`,
            defines: {
              T: cudaTypes[dtype],
              HEAD_DIM: headDim,
              THREADS: threads,
              UNROLL: unroll,
              MIN_BLOCKS_1: residentBlocks[1],
              MIN_BLOCKS_2: residentBlocks[2],
              MIN_BLOCKS_4: residentBlocks[4],
            },
          }),
        );
  return kernels;
}

const decodeKernels = {
  f32: decodeFamily("f32", "attention_decode"),
  bf16: decodeFamily("bf16", "attention_decode"),
} as const;
const rotaryDecodeKernels = {
  f32: decodeFamily("f32", "rotary_attention_decode"),
  bf16: decodeFamily("bf16", "rotary_attention_decode"),
} as const;
const decodeAny = perFloat("attention_any.cu", "attention_paged_any");

const cacheThreads = 256;
const anyThreads = 128;
/** The kernel counts arrivals for so many pairs of a sequence and a block of heads. */
const mostArrivals = 4096;
const mostSplits = 64;

/** log2 of a power of two, else -1: a shift takes the place of a division. */
function shiftOf(blockSize: number): number {
  const shift = Math.log2(blockSize);
  return Number.isInteger(shift) ? shift : -1;
}

/** How many blocks share one context: enough to fill the GPU at the batch's size, no more than the longest context is worth. */
function numSplitsFor(
  context: LaunchContext,
  args: DecodeArguments,
  { form, group, blocksPerSplit }: { form: DecodeForm; group: DecodeGroup; blocksPerSplit: number },
): number {
  if (blocksPerSplit > mostArrivals) return 1;
  const longestContext = args.maxBlocksPerSequence * args.blockSize;
  const wanted = Math.floor((form.residentBlocks[group] * context.multiprocessorCount) / blocksPerSplit);
  return clamp(Math.min(wanted, ceilDiv(longestContext, form.minSplitTokens)), 1, mostSplits);
}

function decode(
  context: LaunchContext,
  args: DecodeArguments,
  { family, added = [] }: { family: DecodeKernels; added?: readonly KernelParameter[] },
): void {
  const { q, kCache, vCache, blockTables, contextLengths, queryStarts, o } = args;
  const { numSequences, numHeads, numKvHeads, headDim, blockSize, maxBlocksPerSequence } = args;
  const groupSize = numHeads / numKvHeads;
  const group = decodeGroups.find((size) => size >= groupSize) ?? 4;
  const headBlocks = numKvHeads * ceilDiv(groupSize, group);
  const blocksPerSplit = numSequences * headBlocks;
  const formName: DecodeFormName = blocksPerSplit <= context.multiprocessorCount ? "wide" : "narrow";
  const form = decodeForms[formName];
  const numSplits = numSplitsFor(context, args, { form, group, blocksPerSplit });
  const numPartials = numSplits === 1 ? 0 : numSequences * numHeads * numSplits;
  const outputsBytes = numPartials * headDim * 4;
  const partials = numPartials === 0 ? 0 : context.workspace(outputsBytes + numPartials * 8);
  const parameters: KernelParameter[] = [
    ...[q, kCache, vCache, blockTables, contextLengths, queryStarts, o].map(pointer),
    address(partials),
    address(partials + outputsBytes),
    i64(args.qRowStride),
    i64(args.oRowStride),
    i32(numHeads),
    i32(numKvHeads),
    i32(groupSize),
    i32(headDim),
    i32(blockSize),
    i32(shiftOf(blockSize)),
    i32(maxBlocksPerSequence),
    i32(numSplits),
    i32(form.minSplitTokens),
    f32(args.scale * Math.LOG2E),
    ...added,
  ];
  const chosen = family.get(`${formName} ${paddedHeadDim(headDim)} ${group}`);
  invariant(chosen !== undefined, "a decoding kernel for every size of head and group");
  const grid = [numSplits, headBlocks, numSequences] as const;
  context.launch(chosen, overlapping(context, { grid, block: form.threads }), parameters);
}

/** The kernel's second structure: what turns, where it goes, and what may be read before the kernel's predecessors end. */
function newestRow(context: LaunchContext, args: RotaryPagedArguments): KernelParameter[] {
  const { k, v, positions, cosSin, slots, kCache, vCache, blockTables, contextLengths } = args;
  const inputs = [positions, cosSin, slots, blockTables, contextLengths];
  const areInputsSettled = inputs.every((tensor) => context.wasSettled(tensor));
  const areCachesSettled = areInputsSettled && context.wasSettled(kCache) && context.wasSettled(vCache);
  return [
    ...[k, v, positions, cosSin, slots, kCache, vCache].map(pointer),
    i64(args.kRowStride),
    i64(args.vRowStride),
    i32(args.rotaryDim),
    i32(Number(areInputsSettled)),
    i32(Number(areCachesSettled)),
  ];
}

function canDecode(
  args: Pick<PagedArguments, "q" | "kCache" | "vCache" | "o" | "headDim" | "qRowStride" | "oRowStride">,
): boolean {
  const { q, kCache, vCache, o, headDim, qRowStride, oRowStride } = args;
  return (
    allowsPacks([q, kCache, vCache, o], [headDim, qRowStride, oRowStride]) &&
    decodeHeadDims.some((size) => size >= headDim)
  );
}

function paddedHeadDim(headDim: number): number {
  return decodeHeadDims.find((size) => size >= headDim) ?? headDim;
}

/** Any head size, stride and alignment, for any number of query rows; slow. */
function pagedAny(context: LaunchContext, args: PagedArguments, dtype: "f32" | "bf16"): void {
  const { q, kCache, vCache, blockTables, contextLengths, queryStarts, o } = args;
  const grid = [args.maxQueryLength, args.numHeads, args.numSequences] as const;
  context.launch(decodeAny[dtype], { grid, block: anyThreads, sharedBytes: args.headDim * 4 }, [
    ...[q, kCache, vCache, blockTables, contextLengths, queryStarts, o].map(pointer),
    i64(args.qRowStride),
    i64(args.oRowStride),
    i32(args.numHeads),
    i32(args.numKvHeads),
    i32(args.headDim),
    i32(args.blockSize),
    i32(args.maxBlocksPerSequence),
    f32(args.scale),
  ]);
}

function attentionPaged(context: LaunchContext, args: PagedArguments): void {
  const { q, kCache, vCache, o, headDim, maxQueryLength, numSequences } = args;
  const dtype = attentionDtype("attentionPaged", [q, kCache, vCache, o], headDim);
  if (numSequences === 0 || maxQueryLength === 0) return;
  if (!canDecode(args) || (maxQueryLength > 1 && dtype === "f32")) {
    pagedAny(context, args, dtype);
    return;
  }
  if (maxQueryLength > 1) forwardPaged(context, args, shiftOf(args.blockSize));
  decode(context, args, { family: decodeKernels[dtype] });
}

export const pagedAttentionKernels = {
  kvCacheWrite: (context, args) => {
    const { k, v, slots, kCache, vCache, numRows, numKvHeads, headDim, kRowStride, vRowStride } = args;
    const dtype = floatDtype("kvCacheWrite", k);
    if ([v, kCache, vCache].some((tensor) => tensor.dtype !== dtype))
      throw new DtypeError("cuda", `expected ${dtype} keys, values and caches for kvCacheWrite, got others`);
    const width = numKvHeads * headDim;
    const grid = ceilDiv(numRows * ceilDiv(width, packSize(k)), cacheThreads);
    context.launch(cacheWrite[dtype], overlapping(context, { grid, block: cacheThreads }), [
      ...[k, v, slots, kCache, vCache].map(pointer),
      i64(numRows),
      i64(kRowStride),
      i64(vRowStride),
      i32(width),
    ]);
  },

  attentionPaged,

  rotaryAttentionPaged: (context, args) => {
    const { q, k, v, kCache, vCache, cosSin, o, headDim, kRowStride, vRowStride, rotaryDim } = args;
    const dtype = attentionDtype("rotaryAttentionPaged", [q, k, v, kCache, vCache, o], headDim);
    if (args.numSequences === 0) return;
    if (canDecode(args) && allowsPacks([q, k, v, cosSin], [kRowStride, vRowStride, rotaryDim / 2])) {
      decode(context, args, { family: rotaryDecodeKernels[dtype], added: newestRow(context, args) });
      return;
    }
    rotaryKernels.rotaryCacheWrite(context, { ...args, numRows: args.numSequences });
    attentionPaged(context, { ...args, maxQueryLength: 1 });
  },
} satisfies CudaKernels;
