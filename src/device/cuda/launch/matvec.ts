/**
 * Products of a few rows with a bf16 weight, as decoding makes them, by a kernel that may overlap its predecessor.
 * Knows for which products it is worth while, and how rows and columns are shared out; matmul.ts leaves all others to cuBLASLt.
 * Invariant: a result depends on the arguments and the kind of GPU alone, never on timing.
 */
import type { OpArguments } from "../../contract.ts";
import {
  addressOf,
  cudaTypes,
  kernel,
  structure,
  type KernelReference,
  type LaunchContext,
} from "../launcher.ts";

const mostRows = 16;
const tileRows = 16;
const numWarps = 8;
/** Columns of a stage of the ring. */
const stageColumns = 1024;
/** Rows of a stage lie 64 bytes further apart than they are long. */
const stageBytes = tileRows * (stageColumns * 2 + 64);
const ringDepth = 6;
/** What a block keeps of x in registers. */
const mostChunkColumns = 4 * stageColumns;
/** Chunks begin where lines of the cache do. */
const chunkGranularity = 64;
const mostSplits = 32;
/** The kernel counts arrivals for so many. */
const mostTiles = 16_384;
const minimumCapability = 90;

/** By dtype of the result, then by tiles of 8 rows of x. */
const kernels: Readonly<Record<"f32" | "bf16", readonly KernelReference[]>> = {
  f32: variants("f32"),
  bf16: variants("bf16"),
};

function variants(dtype: "f32" | "bf16"): KernelReference[] {
  return [1, 2].map((numTokenTiles) =>
    kernel({
      file: "matvec.cu",
      entry: "matvec",
      defines: { T: cudaTypes[dtype], DEPTH: ringDepth, NUM_WARPS: numWarps, TOKEN_TILES: numTokenTiles },
      minimumCapability,
    }),
  );
}

function sharedBytesOf(numTokenTiles: number): number {
  const sumsBytes = 2 * numWarps * tileRows * 8 * numTokenTiles * 4;
  return ringDepth * stageBytes + sumsBytes;
}

/** How the columns of w are cut: into `numSplits` chunks of `chunk` columns. */
export interface MatvecSplit {
  readonly numSplits: number;
  readonly chunk: number;
}

/** Chunks that fit in registers, and more of them where the rows alone do not give every multiprocessor work. */
export function splitColumns(k: number, numTiles: number, numMultiprocessors: number): MatvecSplit {
  const needed = Math.ceil(k / mostChunkColumns);
  const useful = Math.min(Math.ceil(k / stageColumns), Math.floor(numMultiprocessors / numTiles), mostSplits);
  const chunk = Math.ceil(k / Math.max(needed, useful) / chunkGranularity) * chunkGranularity;
  return { numSplits: Math.ceil(k / chunk), chunk };
}

function applies({ a, b, c, bias, m, n, k, ...rest }: OpArguments<"matmul">): boolean {
  return (
    m <= mostRows &&
    rest.transposeA === 0 &&
    rest.transposeB === 1 &&
    a.dtype === "bf16" &&
    b.dtype === "bf16" &&
    (c.dtype === "bf16" || c.dtype === "f32") &&
    bias === undefined &&
    rest.alpha === 1 &&
    rest.beta === 0 &&
    k > 0 &&
    k % 8 === 0 &&
    rest.lda % 8 === 0 &&
    rest.ldb % 8 === 0 &&
    k <= mostSplits * mostChunkColumns &&
    (n <= mostTiles * tileRows || k <= mostChunkColumns) &&
    addressOf(a) % 16 === 0 &&
    addressOf(b) % 16 === 0
  );
}

/** Whether it was measured to beat cuBLASLt: docs/log.md, 2026-11-24. */
function isWorthwhile(context: LaunchContext, { m, n, k }: OpArguments<"matmul">): boolean {
  const numTiles = Math.ceil(n / tileRows);
  const numWaves = Math.ceil(numTiles / context.multiprocessorCount);
  const balance = numTiles / (numWaves * context.multiprocessorCount);
  return m <= 8 && k <= mostChunkColumns && n * k >= 2 ** 23 && n * k <= 2 ** 24 && balance >= 0.9;
}

/** Queues the product if the kernel is the best way to do it, and says whether it did. Throws DisposedError. */
export function runMatvec(context: LaunchContext, args: OpArguments<"matmul">): boolean {
  return isWorthwhile(context, args) && launchMatvec(context, args);
}

/** Queues the product if the kernel can do it, and says whether it did. Throws DisposedError. */
export function launchMatvec(context: LaunchContext, args: OpArguments<"matmul">): boolean {
  if (context.computeCapability < minimumCapability || !applies(args)) return false;
  const { a, b, c, m, n, k, lda, ldb, ldc } = args;
  const numTokenTiles = m <= 8 ? 1 : 2;
  const sharedBytes = sharedBytesOf(numTokenTiles);
  if (sharedBytes > context.sharedMemoryLimit) return false;
  const numTiles = Math.ceil(n / tileRows);
  const { numSplits, chunk } = splitColumns(k, numTiles, context.multiprocessorCount);
  const numGroups = Math.max(1, Math.min(numTiles, Math.floor(context.multiprocessorCount / numSplits)));
  const partialsBytes = numTiles * numSplits * tileRows * 8 * numTokenTiles * 4;
  const partials = numSplits === 1 ? 0 : context.workspace(partialsBytes);
  const words = new BigInt64Array(10);
  [addressOf(a), addressOf(b), addressOf(c), partials, lda, ldb, ldc].forEach((word, index) => {
    words[index] = BigInt(word);
  });
  new Int32Array(words.buffer, 7 * 8).set([m, n, k, numSplits, chunk]);
  context.launch(
    kernels[c.dtype === "f32" ? "f32" : "bf16"][numTokenTiles - 1],
    {
      grid: numGroups * numSplits,
      block: (numWarps + 1) * 32,
      sharedBytes,
      overlapsPrevious: true,
    },
    [structure(new Uint8Array(words.buffer), 8)],
  );
  return true;
}
