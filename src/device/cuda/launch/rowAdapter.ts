/**
 * Launchers of adapters chosen row by row: for the few rows of a decode step, whose time is that of waiting for memory, and correct for
 * any number. Factors that nothing writes are read while the kernels before still run.
 */
import type { OpArguments } from "../../contract.ts";
import {
  addressOf,
  cudaTypes,
  floatDtype,
  kernel,
  structure,
  type CudaKernels,
  type KernelReference,
  type LaunchContext,
} from "../launcher.ts";
import { allowsPacks, ceilDiv, overlapping, packSize } from "./grid.ts";

// Sizes as in kernels/row_adapter_down.cu and row_adapter_up.cu.
const downThreads = 256;
const downRanks = 4;
const upThreads = 128;
/** 16-byte pieces of b that a thread holds, by rows of a group. */
const upPieces = { 1: 8, 4: 4 } as const;
/** Rows of one adapter that share a block's reading of its factors. */
const groupSizes = [1, 4] as const;
type GroupSize = (typeof groupSizes)[number];
/** Up to here rows that read for themselves keep the GPU no busier than it is anyway. */
const mostSingleRows = 32;
const warpSize = 32;

type FloatName = "f32" | "bf16";

function down(type: FloatName, rows: GroupSize, entry: string): KernelReference {
  return kernel({ file: "row_adapter_down.cu", entry, defines: { T: cudaTypes[type], ROWS: rows } });
}

function up(type: FloatName, y: FloatName, rows: GroupSize, entry = "adapter_up"): KernelReference {
  const defines = { T: cudaTypes[type], Out: cudaTypes[y], ROWS: rows };
  return kernel({ file: "row_adapter_up.cu", entry, defines });
}

function downKernels(type: FloatName) {
  return {
    packs: { 1: down(type, 1, "adapter_down"), 4: down(type, 4, "adapter_down") },
    any: down(type, 1, "adapter_down_any"),
  } as const;
}

function upKernels(type: FloatName, y: FloatName) {
  return {
    packs: { 1: up(type, y, 1), 4: up(type, y, 4) },
    any: up(type, y, 1, "adapter_up_any"),
  } as const;
}

const downs = { f32: downKernels("f32"), bf16: downKernels("bf16") } as const;
/** By dtype of b, then of y. */
const ups = {
  f32: { f32: upKernels("f32", "f32"), bf16: upKernels("f32", "bf16") },
  bf16: { f32: upKernels("bf16", "f32"), bf16: upKernels("bf16", "bf16") },
} as const;

function groupSize(numRows: number): GroupSize {
  return numRows <= mostSingleRows ? 1 : 4;
}

function launch(
  context: LaunchContext,
  { reference, grid, threads }: { reference: KernelReference; grid: number; threads: number },
  { addresses, integers }: { addresses: readonly number[]; integers: readonly number[] },
): void {
  const words = new BigInt64Array(addresses.length + ceilDiv(integers.length, 2));
  words.set(addresses.map(BigInt));
  new Int32Array(words.buffer).set(integers, 2 * addresses.length);
  context.launch(reference, overlapping(context, { grid, block: threads }), [
    structure(new Uint8Array(words.buffer), 8),
  ]);
}

function launchDown(
  context: LaunchContext,
  { x, a, slots, low, ...sizes }: OpArguments<"adapterDown">,
): void {
  const { numRows, width, rank, xRowStride } = sizes;
  if (numRows === 0 || rank === 0) return;
  const kernels = downs[floatDtype("adapterDown", x)];
  const hasPacks = width > 0 && allowsPacks([x, a], [width, xRowStride]);
  const blocksPerRow = ceilDiv(rank, hasPacks ? downRanks : downThreads / warpSize);
  const isSettled = context.isSettled(a) && context.isSettled(slots);
  launch(
    context,
    {
      reference: hasPacks ? kernels.packs[groupSize(numRows)] : kernels.any,
      grid: numRows * blocksPerRow,
      threads: downThreads,
    },
    {
      addresses: [...[x, a, slots, low].map(addressOf), xRowStride],
      integers: [numRows, width, rank, blocksPerRow, Number(isSettled)],
    },
  );
}

/** The numbers of blocks up to the end of each part, whose outputs end at `ends`. */
function blockEnds(ends: readonly number[], outputsPerBlock: number): number[] {
  let numBlocks = 0;
  return ends.map((end, part) => {
    numBlocks += ceilDiv(end - (part === 0 ? 0 : ends[part - 1]), outputsPerBlock);
    return numBlocks;
  });
}

function launchUp(
  context: LaunchContext,
  { low, b, scales, slots, y, ...sizes }: OpArguments<"adapterUp">,
): void {
  const { numRows, width, rank, numParts, secondStart, thirdStart, yRowStride } = sizes;
  if (numRows === 0 || width === 0 || rank === 0) return;
  const kernels = ups[floatDtype("adapterUp", b)][floatDtype("adapterUp", y)];
  // A line of b is one 16-byte piece of each of so many lanes.
  const numPieces = rank / packSize(b);
  const hasPacks =
    Number.isInteger(Math.log2(numPieces)) && numPieces <= warpSize && allowsPacks([b, low], [rank]);
  const rows = groupSize(numRows);
  const outputs = hasPacks ? (upThreads * upPieces[rows]) / numPieces : upThreads;
  // Pieces stay in their part, single outputs need not.
  const [secondBlock, thirdBlock, blocksPerRow] = hasPacks
    ? blockEnds([secondStart, thirdStart, width], outputs)
    : [0, 0, ceilDiv(width, outputs)];
  const isSettled = [b, scales, slots].every((tensor) => context.isSettled(tensor));
  launch(
    context,
    {
      reference: hasPacks ? kernels.packs[rows] : kernels.any,
      grid: numRows * blocksPerRow,
      threads: upThreads,
    },
    {
      addresses: [...[low, b, scales, slots, y].map(addressOf), yRowStride],
      integers: [
        numRows,
        width,
        rank,
        numParts,
        secondStart,
        thirdStart,
        blocksPerRow,
        secondBlock,
        thirdBlock,
        hasPacks ? Math.log2(numPieces) : 0,
        Number(isSettled),
      ],
    },
  );
}

export const rowAdapterKernels = {
  adapterDown: launchDown,
  adapterUp: launchUp,
} satisfies CudaKernels;
