/**
 * Products with one dimension of at most 64, as adapters of low rank make them: bound by the one pass over their large matrix, at which
 * cuBLASLt's tiles idle. Knows which products those are, and how rows and columns are shared out; matmul.ts leaves all others to
 * cuBLASLt.
 * Invariant: a result depends on the arguments and the kind of GPU alone, never on timing.
 */
import type { OpArguments } from "../../contract.ts";
import {
  address,
  addressOf,
  f32,
  i32,
  i64,
  kernel,
  pointer,
  structure,
  type KernelParameter,
  type KernelReference,
  type LaunchContext,
} from "../launcher.ts";
import { ceilDiv, clamp, overlapping } from "./grid.ts";

type Product = OpArguments<"matmul">;

// Sizes as in kernels/thin_product.cu.
const threads = 256;
const down = { rows: 128, columns: 64, depth: 4 } as const;
const up = { rows: 256, columns: 256 } as const;
const gradient = { rows: 32, columns: 256, depth: 4 } as const;
const backward = { rows: 16, columns: 512, depth: 4, warps: 8 } as const;
const rowPadding = 8;
const mostRanks = 64;
/** Elements of the large matrix below which the few microseconds of a launch decide. */
const leastStreamed = 2 ** 20;
const leastRows = 256;
/** Larger grids in their second dimension are refused. */
const mostGridRows = 65_535;

interface Kernels {
  readonly down: readonly [plain: KernelReference, transposed: KernelReference];
  readonly up: readonly [plain: KernelReference, transposed: KernelReference];
  readonly gradient: KernelReference;
  /** For at most 32 ranks: more do not fit in registers. */
  readonly backward: KernelReference | undefined;
  readonly finish: KernelReference;
}

/** By ranks in sixteens, from 1. */
const kernels: readonly Kernels[] = Array.from({ length: mostRanks / 16 }, (_, index) => {
  const entry = (name: string) =>
    kernel({ file: "thin_product.cu", entry: name, defines: { RANKS: 16 * (index + 1) } });
  return {
    down: [entry("thin_down"), entry("thin_down_transposed")],
    up: [entry("thin_up"), entry("thin_up_transposed")],
    gradient: entry("thin_gradient"),
    backward: index < 2 ? entry("thin_backward") : undefined,
    finish: entry("thin_finish"),
  };
});

/** Ranks as the kernels count them. */
function ranksOf(rank: number): number {
  return 16 * ceilDiv(rank, 16);
}

function kernelsFor(rank: number): Kernels {
  return kernels[ceilDiv(rank, 16) - 1];
}

/** The three forms of kernels/thin_product.cu. */
export type ThinForm = "down" | "up" | "gradient";

const isRank = (size: number): boolean => size > 0 && size <= mostRanks && size % 8 === 0;
const isWide = (size: number): boolean => size > mostRanks && size % 8 === 0;

/** The form by which the kernels can do a product; undefined where they cannot. */
export function thinFormOf(args: Product): ThinForm | undefined {
  const { a, b, c, bias, m, n, k, lda, ldb, ldc, transposeA, transposeB } = args;
  if (a.dtype !== "bf16" || b.dtype !== "bf16" || bias !== undefined || m === 0) return undefined;
  if (c.dtype !== "bf16" && c.dtype !== "f32") return undefined;
  if (lda % 8 !== 0 || ldb % 8 !== 0 || addressOf(a) % 16 !== 0 || addressOf(b) % 16 !== 0) return undefined;
  if (transposeA === 1) {
    const isThin = (isRank(m) && isWide(n)) || (isWide(m) && isRank(n));
    return transposeB === 0 && k > 0 && isThin ? "gradient" : undefined;
  }
  if (isRank(n) && isWide(k)) return "down";
  const isPacked = c.dtype === "bf16" && ldc % 8 === 0 && addressOf(c) % 16 === 0;
  return isRank(k) && isWide(n) && isPacked && m <= mostGridRows * up.rows ? "up" : undefined;
}

function isWorthwhile({ m, n, k, transposeA }: Product): boolean {
  const [numRows, width] = transposeA === 1 ? [k, Math.max(m, n)] : [m, Math.max(n, k)];
  return numRows >= leastRows && numRows * width >= leastStreamed;
}

/** Queues the product if the kernels are the best way to do it, and says whether it did. Throws DisposedError. */
export function runThinProduct(context: LaunchContext, args: Product): boolean {
  return isWorthwhile(args) && launchThinProduct(context, args);
}

/** Queues the product if the kernels can do it, and says whether it did. Throws DisposedError. */
export function launchThinProduct(context: LaunchContext, args: Product): boolean {
  switch (thinFormOf(args)) {
    case "down":
      return launchDown(context, args);
    case "up":
      return launchUp(context, args);
    case "gradient":
      return launchGradient(context, args);
    case undefined:
      return false;
  }
}

/**
 * How a sum over `length` is cut so that `numBlocks` times the parts give every multiprocessor a block: parts of `chunk`, a multiple
 * of `granularity`.
 */
export function splitSum(
  length: number,
  {
    numBlocks,
    numMultiprocessors,
    granularity,
  }: Readonly<Record<"numBlocks" | "numMultiprocessors" | "granularity", number>>,
): { numSplits: number; chunk: number } {
  const wanted = clamp(Math.floor(numMultiprocessors / numBlocks), 1, ceilDiv(length, granularity));
  const chunk = ceilDiv(ceilDiv(length, wanted), granularity) * granularity;
  return { numSplits: ceilDiv(length, chunk), chunk };
}

const isBf16 = ({ c }: Pick<Product, "c">): KernelParameter => i32(Number(c.dtype === "bf16"));

function launchDown(context: LaunchContext, args: Product): boolean {
  const { a, b, c, m, n, k, lda, ldb, ldc, transposeB, alpha, beta } = args;
  const own = kernelsFor(n);
  const ranks = ranksOf(n);
  const numBlocks = ceilDiv(m, down.rows);
  const { numSplits, chunk } = splitSum(k, {
    numBlocks,
    numMultiprocessors: context.multiprocessorCount,
    granularity: down.columns,
  });
  const wideStride = down.columns + rowPadding;
  const thinElements = Math.max(ranks * wideStride, down.columns * (ranks + rowPadding));
  const sharedBytes = down.depth * (down.rows * wideStride + thinElements) * 2;
  if (sharedBytes > context.sharedMemoryLimit) return false;
  const partials = numSplits === 1 ? 0 : context.workspace(numSplits * m * n * 4);
  const shape = overlapping(context, { grid: [numBlocks, numSplits], block: threads, sharedBytes });
  context.launch(own.down[transposeB], shape, [
    pointer(a),
    pointer(b),
    pointer(c),
    address(partials),
    ...[m, k, lda, ldb, ldc, chunk].map(i64),
    i32(n),
    isBf16(args),
    f32(alpha),
    f32(beta),
  ]);
  if (numSplits > 1)
    launchFinish(context, [
      { ...args, partials, numSplits, numRows: m, width: n, rowStride: ldc, columnStride: 1 },
    ]);
  return true;
}

function launchUp(context: LaunchContext, { a, b, c, m, n, k, lda, ldb, ldc, ...rest }: Product): boolean {
  const grid = [ceilDiv(n, up.columns), ceilDiv(m, up.rows)] as const;
  context.launch(kernelsFor(k).up[rest.transposeB], overlapping(context, { grid, block: threads }), [
    pointer(a),
    pointer(b),
    pointer(c),
    ...[m, n, lda, ldb, ldc].map(i64),
    i32(k),
    i32(0),
    f32(rest.alpha),
    f32(rest.beta),
  ]);
  return true;
}

/** How a sum over rows of a wide and a thin matrix is shared out, and the bytes of the ring that both are copied through. */
function shareOfRows(
  context: LaunchContext,
  { rows, columns, depth }: typeof gradient | typeof backward,
  { numRows, width, rank }: Readonly<Record<"numRows" | "width" | "rank", number>>,
): { numBlocks: number; numSplits: number; chunk: number; ringBytes: number } {
  const numBlocks = ceilDiv(width, columns);
  const split = splitSum(numRows, {
    numBlocks,
    numMultiprocessors: context.multiprocessorCount,
    granularity: rows,
  });
  return { numBlocks, ...split, ringBytes: depth * rows * (columns + ranksOf(rank) + 2 * rowPadding) * 2 };
}

function launchGradient(context: LaunchContext, args: Product): boolean {
  const { a, b, m, n, k, lda, ldb, ldc } = args;
  const isLeftThin = m <= mostRanks;
  const [rank, width] = isLeftThin ? [m, n] : [n, m];
  const share = shareOfRows(context, gradient, { numRows: k, width, rank });
  const { numBlocks, numSplits, chunk, ringBytes: sharedBytes } = share;
  if (sharedBytes > context.sharedMemoryLimit) return false;
  const partials = context.workspace(numSplits * rank * width * 4);
  const [thin, wide] = isLeftThin ? [a, b] : [b, a];
  const strides = isLeftThin ? [lda, ldb] : [ldb, lda];
  const shape = overlapping(context, { grid: [numBlocks, numSplits], block: threads, sharedBytes });
  context.launch(kernelsFor(rank).gradient, shape, [
    pointer(thin),
    pointer(wide),
    address(partials),
    ...[k, width, ...strides, chunk].map(i64),
    i32(rank),
    i32(0),
  ]);
  const [rowStride, columnStride] = isLeftThin ? [ldc, 1] : [1, ldc];
  launchFinish(context, [{ ...args, partials, numSplits, numRows: rank, width, rowStride, columnStride }]);
  return true;
}

/** c = alpha (the sum over the splits) + beta c. */
interface Sums extends Pick<Product, "c" | "alpha" | "beta"> {
  /** Address of f32 (numSplits, numRows, width). */
  readonly partials: number;
  readonly numSplits: number;
  readonly numRows: number;
  readonly width: number;
  /** Of c, in elements. */
  readonly rowStride: number;
  readonly columnStride: number;
}

/** Bytes of `Sums` in the kernel. */
const sumsBytes = 64;

function launchFinish(context: LaunchContext, sums: readonly [Sums] | readonly [Sums, Sums]): void {
  const bytes = new Uint8Array(2 * sumsBytes);
  for (const [index, { partials, c, numRows, width, rowStride, columnStride, ...rest }] of sums.entries()) {
    const start = index * sumsBytes;
    const words = [partials, addressOf(c), numRows, width, rowStride, columnStride];
    new BigInt64Array(bytes.buffer, start, words.length).set(words.map(BigInt));
    new Int32Array(bytes.buffer, start + 48, 2).set([rest.numSplits, Number(c.dtype === "bf16")]);
    new Float32Array(bytes.buffer, start + 56, 2).set([rest.alpha, rest.beta]);
  }
  const most = Math.max(...sums.map(({ numRows, width }) => numRows * width));
  const grid = [ceilDiv(most, threads), sums.length] as const;
  context.launch(kernels[0].finish, overlapping(context, { grid, block: threads }), [structure(bytes, 8)]);
}

type Gradients = OpArguments<"lowRankBackward">;

/** The two products that the operator is. */
export function productsOf({ dy, low, b, dlow, db, numRows, width, rank, ...rest }: Gradients): Product[] {
  const { dyRowStride, lowRowStride, dlowRowStride, alpha, beta } = rest;
  const shared = { a: dy, lda: dyRowStride, transposeB: 0, alpha, n: rank };
  return [
    { ...shared, b, c: dlow, m: numRows, k: width, ldb: rank, ldc: dlowRowStride, transposeA: 0, beta: 0 },
    { ...shared, b: low, c: db, m: width, k: numRows, ldb: lowRowStride, ldc: rank, transposeA: 1, beta },
  ];
}

/** As runThinProduct, for both gradients of a low-rank addition from one reading of dy. */
export function runLowRankBackward(context: LaunchContext, args: Gradients): boolean {
  return productsOf(args).every(isWorthwhile) && launchLowRankBackward(context, args);
}

/** As launchThinProduct, for both gradients of a low-rank addition from one reading of dy. */
export function launchLowRankBackward(context: LaunchContext, args: Gradients): boolean {
  const { dy, low, b, dlow, db, numRows, width, rank, dyRowStride, lowRowStride, dlowRowStride } = args;
  const own = productsOf(args).every((product) => thinFormOf(product) !== undefined)
    ? kernelsFor(rank).backward
    : undefined;
  if (own === undefined) return false;
  const { numBlocks, numSplits, chunk, ringBytes } = shareOfRows(context, backward, args);
  const sharedBytes = ringBytes + 2 * backward.warps * backward.rows * ranksOf(rank) * 4;
  if (sharedBytes > context.sharedMemoryLimit) return false;
  const lowBytes = ceilDiv(numBlocks * numRows * rank * 4, 256) * 256;
  const lowPartials = context.workspace(lowBytes + numSplits * rank * width * 4);
  const bPartials = lowPartials + lowBytes;
  const shape = overlapping(context, { grid: [numBlocks, numSplits], block: threads, sharedBytes });
  context.launch(own, shape, [
    ...[dy, low, b].map(pointer),
    ...[lowPartials, bPartials].map(address),
    ...[numRows, width, dyRowStride, lowRowStride, chunk].map(i64),
    i32(rank),
    i32(0),
  ]);
  launchFinish(context, [
    {
      c: dlow,
      alpha: args.alpha,
      beta: 0,
      partials: lowPartials,
      numSplits: numBlocks,
      numRows,
      width: rank,
      rowStride: dlowRowStride,
      columnStride: 1,
    },
    {
      c: db,
      alpha: args.alpha,
      beta: args.beta,
      partials: bPartials,
      numSplits,
      numRows: rank,
      width,
      rowStride: 1,
      columnStride: rank,
    },
  ]);
  return true;
}
