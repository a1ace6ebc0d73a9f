/**
 * Launchers of attentionPaged and rotaryAttentionPaged, over caches of floats or of E4M3 codes. Sequences with one query row take the decoding kernel, others the tiled one; which of
 * them has what to do is read on the device, so the grids hang on maxima alone.
 */
import { invariant, UnsupportedOpError } from "../../../base/index.ts";
import type { OpArguments, TensorArgument } from "../../contract.ts";
import type { OpName } from "../../ops.ts";
import {
  address,
  cudaTypes,
  addressOf,
  f32,
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
import { forwardPaged, largestHeadDim } from "./attention.ts";
import { cachedDtypes } from "./cacheWrite.ts";
import { allowsPacks, ceilDiv, clamp, overlapping } from "./grid.ts";
import { rotaryKernels } from "./rotary.ts";

type PagedArguments = OpArguments<"attentionPaged">;
type RotaryPagedArguments = OpArguments<"rotaryAttentionPaged">;
/** What both operators have. */
type DecodeArguments = Omit<PagedArguments, "maxQueryLength">;

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
  readonly residentBlocks: Readonly<Partial<Record<DecodeGroup, number>>>;
  /** A further split of a context pays from this many tokens on. */
  readonly minSplitTokens: number;
}

/** Many sequences: the blocks themselves fill the GPU. Few: a short context is one step of one block, with no sums over splits. */
type DecodeFormName = "narrow" | "wide";
type DecodeForms = Readonly<Record<DecodeFormName, DecodeForm>>;

const wide: DecodeForm = {
  threads: 512,
  unroll: 2,
  residentBlocks: { 1: 1, 2: 1, 4: 1 },
  minSplitTokens: 256,
};
const floatForms: DecodeForms = {
  narrow: { threads: 128, unroll: 1, residentBlocks: { 1: 8, 2: 6, 4: 4 }, minSplitTokens: 64 },
  wide,
};
const fewCodesForms: DecodeForms = {
  narrow: { threads: 128, unroll: 2, residentBlocks: { 1: 7, 2: 5, 4: 4 }, minSplitTokens: 64 },
  wide,
};
/**
 * By how many codes an access takes. 16 for many sequences and one query head a block, so that a key's place is found by half as many lanes; 8
 * (f32: 4) for several heads, whose sums need the registers, and for heads that 16 do not divide.
 */
const codeForms: Readonly<Record<4 | 8 | 16, Partial<DecodeForms>>> = {
  16: { narrow: { threads: 128, unroll: 1, residentBlocks: { 1: 6 }, minSplitTokens: 64 } },
  8: fewCodesForms,
  4: fewCodesForms,
};
/** How many codes an access takes, or 0 for floats. */
type AccessCodes = keyof typeof codeForms | 0;

function formsOf(codes: AccessCodes): Partial<DecodeForms> {
  return codes === 0 ? floatForms : codeForms[codes];
}

/** Each size, type and access is a module of its own, which takes the compiler two seconds: ahead come those of usual models alone. */
function isRare(dtype: "f32" | "bf16", codes: AccessCodes, headDim: number): boolean {
  return dtype === "f32" || codes !== 0 || headDim > 128;
}

type DecodeKernels = ReadonlyMap<string, KernelReference>;

function addDecodeKernels(
  kernels: Map<string, KernelReference>,
  { dtype, codes, name }: { dtype: "f32" | "bf16"; codes: AccessCodes; name: string },
): void {
  for (const [form, { threads, unroll, residentBlocks }] of Object.entries(formsOf(codes)))
    for (const headDim of decodeHeadDims)
      for (const group of decodeGroups.filter((size) => residentBlocks[size] !== undefined))
        kernels.set(
          `${codes} ${form} ${headDim} ${group}`,
          kernel({
            file: "attention_decode.cu",
            entry: `${name}_${group}`,
            isRare: isRare(dtype, codes, headDim),
            defines: {
              T: cudaTypes[dtype],
              CODES: codes,
              HEAD_DIM: headDim,
              THREADS: threads,
              UNROLL: unroll,
              ...Object.fromEntries(
                Object.entries(residentBlocks).map(([size, blocks]) => [`MIN_BLOCKS_${size}`, blocks]),
              ),
            },
          }),
        );
}

function decodeFamily(dtype: "f32" | "bf16", name: string): DecodeKernels {
  const kernels = new Map<string, KernelReference>();
  const accesses: readonly AccessCodes[] = dtype === "bf16" ? [0, 16, 8] : [0, 4];
  for (const codes of accesses) addDecodeKernels(kernels, { dtype, codes, name });
  return kernels;
}

function accessFor(
  dtype: "f32" | "bf16",
  args: DecodeArguments,
  { form, group }: { form: DecodeFormName; group: DecodeGroup },
): AccessCodes {
  if (!hasCodes(args)) return 0;
  if (dtype === "f32") return 4;
  return form === "narrow" && group === 1 && args.headDim % 16 === 0 ? 16 : 8;
}

const decodeKernels = {
  f32: decodeFamily("f32", "attention_decode"),
  bf16: decodeFamily("bf16", "attention_decode"),
} as const;
const rotaryDecodeKernels = {
  f32: decodeFamily("f32", "rotary_attention_decode"),
  bf16: decodeFamily("bf16", "rotary_attention_decode"),
} as const;
const anyKernels = {
  floats: perFloat("attention_any.cu", "attention_paged_any"),
  codes: perFloat("attention_any.cu", "attention_paged_any", { CODES: 1 }),
} as const;

const anyThreads = 128;
/** The kernel counts arrivals for so many pairs of a sequence and a block of heads. */
const mostArrivals = 4096;
const mostSplits = 64;

type Caches = Pick<PagedArguments, "kCache" | "kScales" | "vScales" | "numSlots">;

function hasCodes({ kCache }: Pick<Caches, "kCache">): boolean {
  return kCache.dtype === "u8";
}

function scalesOf({ kScales, vScales, numSlots }: Caches): KernelParameter[] {
  return [pointer(kScales), pointer(vScales), i64(numSlots)];
}

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
  const resident = (form.residentBlocks[group] ?? 1) * context.multiprocessorCount;
  const wanted = Math.floor(resident / blocksPerSplit);
  return clamp(Math.min(wanted, ceilDiv(longestContext, form.minSplitTokens)), 1, mostSplits);
}

function decode(
  context: LaunchContext,
  args: DecodeArguments,
  {
    dtype,
    kernels,
    added = [],
  }: {
    dtype: "f32" | "bf16";
    kernels: Readonly<Record<"f32" | "bf16", DecodeKernels>>;
    added?: readonly KernelParameter[];
  },
): void {
  const { q, kCache, vCache, blockTables, contextLengths, queryStarts, o } = args;
  const { numSequences, numHeads, numKvHeads, headDim, blockSize, maxBlocksPerSequence } = args;
  const groupSize = numHeads / numKvHeads;
  const group = decodeGroups.find((size) => size >= groupSize) ?? 4;
  const headBlocks = numKvHeads * ceilDiv(groupSize, group);
  const blocksPerSplit = numSequences * headBlocks;
  const formName: DecodeFormName = blocksPerSplit <= context.multiprocessorCount ? "wide" : "narrow";
  const codes = accessFor(dtype, args, { form: formName, group });
  const form = formsOf(codes)[formName];
  invariant(form !== undefined, "a form for every access");
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
    ...(hasCodes(args) ? scalesOf(args) : []),
    ...added,
  ];
  const chosen = kernels[dtype].get(`${codes} ${formName} ${paddedHeadDim(headDim)} ${group}`);
  invariant(chosen !== undefined, "a decoding kernel for every size of head and group");
  const grid = [numSplits, headBlocks, numSequences] as const;
  context.launch(chosen, overlapping(context, { grid, block: form.threads }), parameters);
}

/** The kernel's second structure: what turns, where it goes, and what may be read before the kernel's predecessors end. */
function newestRow(context: LaunchContext, args: RotaryPagedArguments): KernelParameter[] {
  const { k, v, positions, cosSin, slots, kCache, vCache, kScales, vScales } = args;
  const inputs = [positions, cosSin, slots, args.blockTables, args.contextLengths];
  const caches = [kCache, vCache, kScales, vScales].filter((tensor) => tensor !== undefined);
  const areInputsSettled = inputs.every((tensor) => context.wasSettled(tensor));
  const areCachesSettled = areInputsSettled && caches.every((tensor) => context.wasSettled(tensor));
  return [
    ...[k, v, positions, cosSin, slots, kCache, vCache].map(pointer),
    i64(args.kRowStride),
    i64(args.vRowStride),
    i32(args.rotaryDim),
    i32(Number(areInputsSettled)),
    i32(Number(areCachesSettled)),
    ...(hasCodes(args) ? [pointer(kScales), pointer(vScales)] : []),
  ];
}

function canDecode(
  args: Pick<PagedArguments, "q" | "kCache" | "vCache" | "o" | "headDim" | "qRowStride" | "oRowStride">,
): boolean {
  const { q, kCache, vCache, o, headDim, qRowStride, oRowStride } = args;
  // Of codes a lane reads as many as there are floats in a pack of q.
  return (
    allowsPacks([q, o], [headDim, qRowStride, oRowStride]) &&
    areAligned([kCache, vCache]) &&
    decodeHeadDims.some((size) => size >= headDim)
  );
}

function areAligned(tensors: readonly TensorArgument[]): boolean {
  return tensors.every((tensor) => addressOf(tensor) % 16 === 0);
}

function paddedHeadDim(headDim: number): number {
  return decodeHeadDims.find((size) => size >= headDim) ?? headDim;
}

/** Any head size, stride and alignment, for any number of query rows; slow. */
function pagedAny(context: LaunchContext, args: PagedArguments, dtype: "f32" | "bf16"): void {
  const { q, kCache, vCache, blockTables, contextLengths, queryStarts, o } = args;
  const grid = [args.maxQueryLength, args.numHeads, args.numSequences] as const;
  const kernels = anyKernels[hasCodes(args) ? "codes" : "floats"];
  context.launch(kernels[dtype], { grid, block: anyThreads, sharedBytes: args.headDim * 4 }, [
    ...[q, kCache, vCache, blockTables, contextLengths, queryStarts, o].map(pointer),
    i64(args.qRowStride),
    i64(args.oRowStride),
    i32(args.numHeads),
    i32(args.numKvHeads),
    i32(args.headDim),
    i32(args.blockSize),
    i32(args.maxBlocksPerSequence),
    f32(args.scale),
    ...scalesOf(args),
  ]);
}

/** Whether the tiled kernel takes the rows of prompts: it copies codes 16 at a time. */
function canTile(dtype: "f32" | "bf16", args: PagedArguments): boolean {
  return dtype === "bf16" && (!hasCodes(args) || args.headDim % 16 === 0);
}

/** The dtype of q and o. Throws DtypeError, UnsupportedOpError. */
function checkedDtype(
  op: OpName,
  floats: readonly TensorArgument[],
  args: Caches & Pick<PagedArguments, "vCache" | "headDim">,
): "f32" | "bf16" {
  const { dtype } = cachedDtypes(op, floats, args);
  if (args.headDim > largestHeadDim)
    throw new UnsupportedOpError(
      "cuda",
      `expected heads of at most ${largestHeadDim} for ${op}, got ${args.headDim}`,
    );
  return dtype;
}

function attentionPaged(context: LaunchContext, args: PagedArguments): void {
  const { q, o, maxQueryLength, numSequences } = args;
  const dtype = checkedDtype("attentionPaged", [q, o], args);
  if (numSequences === 0 || maxQueryLength === 0) return;
  if (!canDecode(args) || (maxQueryLength > 1 && !canTile(dtype, args))) {
    pagedAny(context, args, dtype);
    return;
  }
  if (maxQueryLength > 1) forwardPaged(context, args, shiftOf(args.blockSize));
  decode(context, args, { dtype, kernels: decodeKernels });
}

export const pagedAttentionKernels = {
  attentionPaged,

  rotaryAttentionPaged: (context, args) => {
    const { q, k, v, cosSin, o, kRowStride, vRowStride, rotaryDim } = args;
    const dtype = checkedDtype("rotaryAttentionPaged", [q, k, v, o], args);
    if (args.numSequences === 0) return;
    if (canDecode(args) && allowsPacks([q, k, v, cosSin], [kRowStride, vRowStride, rotaryDim / 2])) {
      decode(context, args, { dtype, kernels: rotaryDecodeKernels, added: newestRow(context, args) });
      return;
    }
    rotaryKernels.rotaryCacheWrite(context, { ...args, numRows: args.numSequences });
    attentionPaged(context, { ...args, maxQueryLength: 1 });
  },
} satisfies CudaKernels;
