/**
 * Products of a few rows with a bf16 weight, as decoding makes them: a kernel that reads the weight at the memory's rate and begins to while
 * its predecessors still run. Knows for which products it is worth while and how rows and columns are shared out; matmul.ts leaves
 * all others to cuBLASLt.
 * Invariant: a result hangs on the row of x, the weight and the kind of GPU alone: not on the other rows, nor on timing.
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
import { ceilDiv } from "./grid.ts";

/** wgmma is Hopper's alone. */
const capability = 90;
/** Rows of x that the kernels are made for, rising. */
const tokenCounts = [8, 16, 32, 64] as const;
const mostRows = 64;
const boxColumns = 64;
const boxRowBytes = 2 * boxColumns;
/** Boxes of 64 columns of a stage of the ring. */
const stageBoxes = 2;
/** Rows of a tile of the weight: those of one group of four warps, and of two. */
const [leastTileRows, mostTileRows] = [64, 128];
/** The ring of a block: the memory's rate takes about 150 KiB under way on every multiprocessor. Other kernels' blocks fit beside it. */
const ringBytes = 200 * 1024;
const mostStages = 32;
/** While previous kernels run; docs/log.md, "Products that stream". */
const numAhead = 2;
/** Columns that a block should have. */
const leastChunk = 1024;
/** Work over what the fullest block has, times the blocks, from which on a form is good enough. */
const wantedBalance = 0.85;
/** Products with less weight than this are over before streaming counts. */
const leastWeightBytes = 2 ** 20;
const parameterBytes = 2 * 128 + 2 * 8 + 9 * 4;

/** How a product is shared out over the GPU's blocks. */
export interface StreamedForm {
  /** Rows of a tile of the weight, a multiple of 8, at most 128. */
  readonly tileRows: number;
  /** Blocks that share a tile, each with a chunk of the columns: 1, 2 or 4. */
  readonly numSplits: number;
}

function variants(dtype: "f32" | "bf16", groups: 1 | 2): readonly KernelReference[] {
  return tokenCounts.map((tokens) =>
    kernel({
      file: "streamed_product.cu",
      entry: "streamed_product",
      defines: { T: cudaTypes[dtype], TOKENS: tokens, GROUPS: groups },
      minimumCapability: capability,
    }),
  );
}

const kernels = {
  f32: { 1: variants("f32", 1), 2: variants("f32", 2) },
  bf16: { 1: variants("bf16", 1), 2: variants("bf16", 2) },
} as const;

/**
 * A block on every multiprocessor, all with about as many rows; where the rows are too few for that, two or four blocks share a tile.
 * The number of rows of x does not count, so that a row's result does not hang on the rows beside it.
 */
export function streamedForm(
  { n, k }: { readonly n: number; readonly k: number },
  numMultiprocessors: number,
): StreamedForm {
  let form = evenTiles(n, numMultiprocessors);
  let numSplits = 1;
  while (numSplits < 4 && form.balance < wantedBalance && k >= 2 * numSplits * leastChunk) {
    numSplits *= 2;
    form = evenTiles(n, Math.floor(numMultiprocessors / numSplits));
  }
  return { tileRows: form.tileRows, numSplits };
}

/** The height of tiles that gives the fullest of `numOwners` fewest rows, the highest of equals. */
function evenTiles(n: number, numOwners: number): { tileRows: number; balance: number } {
  let best = { tileRows: mostTileRows, balance: 0 };
  for (let tileRows = mostTileRows; tileRows >= leastTileRows; tileRows -= 8) {
    const numRounds = ceilDiv(ceilDiv(n, tileRows), numOwners);
    const balance = n / (numOwners * numRounds * tileRows);
    if (balance > best.balance) best = { tileRows, balance };
  }
  return best;
}

function applies({ a, b, c, bias, m, k, ...rest }: OpArguments<"matmul">): boolean {
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
    k % boxColumns === 0 &&
    rest.lda % 8 === 0 &&
    rest.ldb % 8 === 0 &&
    addressOf(a) % 16 === 0 &&
    addressOf(b) % 16 === 0
  );
}

/** Queues the product if the kernel is the best way to do it, and says whether it did. Throws DisposedError. */
export function runStreamedProduct(context: LaunchContext, args: OpArguments<"matmul">): boolean {
  return 2 * args.n * args.k >= leastWeightBytes && launchStreamedProduct(context, args);
}

/** Queues the product if the kernel can do it, and says whether it did. Throws DisposedError. */
export function launchStreamedProduct(
  context: LaunchContext,
  args: OpArguments<"matmul">,
  form: StreamedForm = streamedForm(args, context.multiprocessorCount),
): boolean {
  if (context.computeCapability !== capability || !applies(args)) return false;
  const { a, b, c, m, n, k, lda, ldb, ldc } = args;
  const index = tokenCounts.findIndex((tokens) => m <= tokens);
  const tokens = tokenCounts[index];
  const { tileRows, numSplits } = form;
  const groups = tileRows > mostTileRows / 2 ? 2 : 1;
  const stageBytes = stageBoxes * (8 * ceilDiv(tileRows, 8) + tokens) * boxRowBytes;
  const depth = Math.min(mostStages, Math.floor(ringBytes / stageBytes));
  const weight = {
    address: addressOf(b),
    rows: n,
    columns: k,
    rowStride: ldb,
    tileRows,
    tileBoxes: stageBoxes,
  };
  const x = {
    address: addressOf(a),
    rows: m,
    columns: k,
    rowStride: lda,
    tileRows: tokens,
    tileBoxes: stageBoxes,
  };
  const bytes = new Uint8Array(Math.ceil(parameterBytes / 64) * 64);
  bytes.set(context.tileMap(weight), 0);
  bytes.set(context.tileMap(x), 128);
  new BigInt64Array(bytes.buffer, 256, 2).set([BigInt(addressOf(c)), BigInt(ldc)]);
  const isSettled = context.isSettled(b) ? 1 : 0;
  const boxes = [k / boxColumns, ceilDiv(k, numSplits * stageBoxes * boxColumns) * stageBoxes, stageBoxes];
  new Int32Array(bytes.buffer, 272, 9).set([m, n, ...boxes, tileRows, depth, isSettled, numAhead]);
  context.launch(
    kernels[c.dtype === "f32" ? "f32" : "bf16"][groups][index],
    {
      grid: numSplits === 1 ? context.multiprocessorCount : ceilDiv(n, tileRows) * numSplits,
      block: 128 * groups + 64,
      // Products read whole groups of 64 rows, also beyond a ring's last tile; the ring itself begins where the swizzle does.
      sharedBytes: Math.max(depth * stageBytes + 64 * boxRowBytes, sumsBytes(tokens, groups)) + 1024,
      overlapsPrevious: true,
      ...(numSplits > 1 && { cluster: numSplits }),
    },
    [structure(bytes, 64)],
  );
  return true;
}

/** What a block's sums take where a cluster adds them up. */
function sumsBytes(tokens: number, groups: 1 | 2): number {
  return tokens * (64 * groups + 4) * 4;
}
