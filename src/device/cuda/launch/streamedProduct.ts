/**
 * Products of a few rows with a weight in bf16 or in E4M3, as decoding makes them: a kernel that reads the weight at the memory's rate and begins to while
 * its predecessors still run. Knows for which products it is worth while and how rows and columns are shared out; matmul.ts leaves
 * all others to cuBLASLt.
 * Invariant: a result hangs on the row of x, the weight and the kind of GPU alone: not on the other rows, nor on timing.
 */
import { dtypeBytes } from "../../../base/index.ts";
import type { OpArguments, TensorArgument } from "../../contract.ts";
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
/** Of a box: one line of the swizzle. */
const boxRowBytes = 128;
/** Boxes of a stage of the ring. */
const stageBoxes = 2;
/** Rows of a tile of the weight: those of one group of four warps, and of two. */
const [leastTileRows, mostTileRows] = [64, 128];
/** The ring of a block: the memory's rate takes about 150 KiB under way on every multiprocessor. Other kernels' blocks fit beside it. */
const ringBytes = 200 * 1024;
const mostStages = 32;
/** While previous kernels run; docs/log.md, "Products that stream". */
const numAhead = 2;
/** Bytes of each row that a block should have. */
const leastChunkBytes = 2048;
/** Work over what the fullest block has, times the blocks, from which on a form is good enough. */
const wantedBalance = 0.85;
/** Products with less weight than this are over before streaming counts. */
const leastWeightBytes = 2 ** 20;
const parameterBytes = 2 * 128 + 5 * 8 + 10 * 4;

/** How a product is shared out over the GPU's blocks. */
export interface StreamedForm {
  /** Rows of a tile of the weight, a multiple of 8, at most 128. */
  readonly tileRows: number;
  /** Blocks that share a tile, each with a chunk of the columns: 1, 2 or 4. */
  readonly numSplits: number;
}

function variants(
  element: "bf16" | "e4m3",
  dtype: "f32" | "bf16",
  groups: 1 | 2,
): readonly KernelReference[] {
  return tokenCounts.map((tokens) =>
    kernel({
      file: "streamed_product.cu",
      entry: "streamed_product",
      defines: { T: cudaTypes[dtype], E: element, TOKENS: tokens, GROUPS: groups },
      minimumCapability: capability,
    }),
  );
}

function byResult(element: "bf16" | "e4m3") {
  return {
    f32: { 1: variants(element, "f32", 1), 2: variants(element, "f32", 2) },
    bf16: { 1: variants(element, "bf16", 1), 2: variants(element, "bf16", 2) },
  } as const;
}

/** By dtype of x and the weight. */
const kernels = { bf16: byResult("bf16"), u8: byResult("e4m3") } as const;

/** A weight (n, k). */
export interface WeightShape {
  readonly n: number;
  readonly k: number;
  readonly elementBytes: number;
}

/**
 * A block on every multiprocessor, all with about as many rows; where the rows are too few for that, two or four blocks share a tile.
 * The number of rows of x does not count, so that a row's result does not hang on the rows beside it.
 */
export function streamedForm({ n, k, elementBytes }: WeightShape, numMultiprocessors: number): StreamedForm {
  let form = evenTiles(n, numMultiprocessors);
  let numSplits = 1;
  while (
    numSplits < 4 &&
    form.balance < wantedBalance &&
    k * elementBytes >= 2 * numSplits * leastChunkBytes
  ) {
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

/** y (m, n) = x (m, k) w (n, k)^T, row strides in elements. */
interface StreamedProduct {
  readonly x: TensorArgument;
  readonly weight: TensorArgument;
  readonly y: TensorArgument;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly xRowStride: number;
  readonly weightRowStride: number;
  readonly yRowStride: number;
  /** Of codes, f32 (m) and (n); and a bias (n). */
  readonly scales?: { readonly x: TensorArgument; readonly weight: TensorArgument };
  readonly bias?: TensorArgument | undefined;
}

function applies({ x, weight, y, m, k, xRowStride, weightRowStride }: StreamedProduct): boolean {
  const elementBytes = dtypeBytes(x.dtype);
  return (
    m <= mostRows &&
    (y.dtype === "bf16" || y.dtype === "f32") &&
    k > 0 &&
    (k * elementBytes) % boxRowBytes === 0 &&
    (xRowStride * elementBytes) % 16 === 0 &&
    (weightRowStride * elementBytes) % 16 === 0 &&
    addressOf(x) % 16 === 0 &&
    addressOf(weight) % 16 === 0
  );
}

/** The plain product of bf16 that the operator is, if it is one. */
function plainProduct(args: OpArguments<"matmul">): StreamedProduct | undefined {
  const { a, b, c, bias, transposeA, transposeB, alpha, beta, m, n, k, lda, ldb, ldc } = args;
  const isPlain =
    transposeA === 0 &&
    transposeB === 1 &&
    a.dtype === "bf16" &&
    b.dtype === "bf16" &&
    bias === undefined &&
    alpha === 1 &&
    beta === 0;
  if (!isPlain) return undefined;
  return { x: a, weight: b, y: c, m, n, k, xRowStride: lda, weightRowStride: ldb, yRowStride: ldc };
}

function scaledProduct(args: OpArguments<"matmulScaled">): StreamedProduct {
  const { a, aScales, b, bScales, bias, c, m, n, k, ldc } = args;
  const strides = { xRowStride: k, weightRowStride: k, yRowStride: ldc };
  return { x: a, weight: b, y: c, m, n, k, ...strides, scales: { x: aScales, weight: bScales }, bias };
}

function isWorthwhile({ n, k, weight }: StreamedProduct): boolean {
  return dtypeBytes(weight.dtype) * n * k >= leastWeightBytes;
}

/** Queues the product if the kernel is the best way to do it, and says whether it did. Throws DisposedError. */
export function runStreamedProduct(context: LaunchContext, args: OpArguments<"matmul">): boolean {
  const product = plainProduct(args);
  return product !== undefined && isWorthwhile(product) && launch(context, product);
}

/** As runStreamedProduct, for codes with scales. */
export function runStreamedScaledProduct(context: LaunchContext, args: OpArguments<"matmulScaled">): boolean {
  const product = scaledProduct(args);
  return isWorthwhile(product) && launch(context, product);
}

/** Queues the product if the kernel can do it, and says whether it did. Throws DisposedError. */
export function launchStreamedProduct(
  context: LaunchContext,
  args: OpArguments<"matmul">,
  form?: StreamedForm,
): boolean {
  const product = plainProduct(args);
  return product !== undefined && launch(context, product, form);
}

/** As launchStreamedProduct, for codes with scales. */
export function launchStreamedScaledProduct(
  context: LaunchContext,
  args: OpArguments<"matmulScaled">,
  form?: StreamedForm,
): boolean {
  return launch(context, scaledProduct(args), form);
}

function launch(context: LaunchContext, product: StreamedProduct, wantedForm?: StreamedForm): boolean {
  if (context.computeCapability !== capability || !applies(product)) return false;
  const { x, weight, y, m, n, k, xRowStride, weightRowStride, yRowStride, scales, bias } = product;
  const dtype = x.dtype === "u8" ? "u8" : "bf16";
  const elementBytes = dtypeBytes(dtype);
  const index = tokenCounts.findIndex((tokens) => m <= tokens);
  const tokens = tokenCounts[index];
  const form = wantedForm ?? streamedForm({ n, k, elementBytes }, context.multiprocessorCount);
  const { tileRows, numSplits } = form;
  const groups = tileRows > mostTileRows / 2 ? 2 : 1;
  const stageBytes = stageBoxes * (8 * ceilDiv(tileRows, 8) + tokens) * boxRowBytes;
  const depth = Math.min(mostStages, Math.floor(ringBytes / stageBytes));
  const shared = { dtype, columns: k, tileBoxes: stageBoxes } as const;
  const bytes = new Uint8Array(Math.ceil(parameterBytes / 64) * 64);
  bytes.set(
    context.tileMap({ ...shared, address: addressOf(weight), rows: n, rowStride: weightRowStride, tileRows }),
    0,
  );
  bytes.set(
    context.tileMap({
      ...shared,
      address: addressOf(x),
      rows: m,
      rowStride: xRowStride,
      tileRows: tokens,
    }),
    128,
  );
  const addressOrNull = (tensor: TensorArgument | undefined): bigint =>
    tensor === undefined ? 0n : BigInt(addressOf(tensor));
  new BigInt64Array(bytes.buffer, 256, 5).set([
    BigInt(addressOf(y)),
    BigInt(yRowStride),
    addressOrNull(scales?.weight),
    addressOrNull(scales?.x),
    addressOrNull(bias),
  ]);
  const isSettled = context.isSettled(weight) ? 1 : 0;
  const numBoxes = (k * elementBytes) / boxRowBytes;
  const boxes = [numBoxes, ceilDiv(numBoxes, numSplits * stageBoxes) * stageBoxes, stageBoxes];
  new Int32Array(bytes.buffer, 296, 10).set([
    Number(bias?.dtype === "bf16"),
    m,
    n,
    ...boxes,
    tileRows,
    depth,
    isSettled,
    numAhead,
  ]);
  context.launch(
    kernels[dtype][y.dtype === "f32" ? "f32" : "bf16"][groups][index],
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
