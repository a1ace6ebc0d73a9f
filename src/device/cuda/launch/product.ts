/**
 * What is left over of a matrix product by the library: c = beta * c + bias, and c = product + beta * c + bias where the library
 * would round twice. Knows which products those are; nothing of the library.
 */
import type { Dtype } from "../../../base/index.ts";
import type { OpArguments, TensorArgument } from "../../contract.ts";
import { address, addressOf, cudaTypes, f32, i64, kernel, pointer, type LaunchContext } from "../launcher.ts";

type MatmulArguments = OpArguments<"matmul">;

/** A grid has at most 65,535 rows; a multiple of 64 below it keeps what follows aligned. */
const mostRows = 65_472;
const mostProductBytes = 32 * 2 ** 20;
const tile = 64;

const finishProduct = (["f32", "bf16"] as const).map((c) =>
  (["f32", "bf16"] as const).map((bias) =>
    kernel({
      file: "matmul.cu",
      entry: "finish_product",
      defines: { T: cudaTypes[c], Bias: cudaTypes[bias] },
    }),
  ),
);
const addProduct = kernel({
  file: "matmul.cu",
  entry: "add_product",
  defines: { T: cudaTypes.bf16, Bias: cudaTypes.bf16 },
});

/**
 * Whether the library would round a bf16 sum twice: products that add to c in shapes that are no whole multiples of 64, for which it
 * takes kernels that round the product before they add (docs/log.md, "Tuning").
 */
export function needsAccumulator({
  c,
  m,
  n,
  k,
  beta,
}: {
  readonly c: { readonly dtype: Dtype };
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly beta: number;
}): boolean {
  return c.dtype === "bf16" && beta !== 0 && (m % tile !== 0 || n % tile !== 0 || k % tile !== 0);
}

/** Rows of a product of `n` columns that are accumulated at a time, so that its f32 form stays below 32 MiB. */
export function accumulatedRows(m: number, n: number): number {
  const rows = Math.floor(mostProductBytes / (4 * n) / tile) * tile;
  return Math.min(m, mostRows, Math.max(tile, rows));
}

/** Queues c = beta * c + bias. Throws DisposedError. */
export function launchFinish(context: LaunchContext, args: MatmulArguments, beta: number): void {
  const { c, bias, m, n, ldc } = args;
  const kernels = finishProduct[c.dtype === "bf16" ? 1 : 0];
  for (let start = 0; start < m; start += mostRows)
    context.launch(
      kernels[bias?.dtype === "bf16" ? 1 : 0],
      { grid: [gridColumns(n), Math.min(mostRows, m - start)], block: 256 },
      [
        address(addressOf(c) + start * ldc * (c.dtype === "bf16" ? 2 : 4)),
        pointer(bias),
        i64(n),
        i64(ldc),
        f32(beta),
      ],
    );
}

/** The f32 product (numRows, n), contiguous, of rows `start` and on of c. */
export interface AccumulatedRows {
  readonly product: number;
  readonly start: number;
  readonly numRows: number;
}

/** Queues c = product + beta * c + bias for some rows of a bf16 c, rounded once. At most 65,535 rows. Throws DisposedError. */
export function launchAdd(
  context: LaunchContext,
  args: Pick<MatmulArguments, "n" | "ldc" | "beta"> & { c: TensorArgument; bias?: TensorArgument },
  { product, start, numRows }: AccumulatedRows,
): void {
  const { c, bias, n, ldc, beta } = args;
  context.launch(addProduct, { grid: [gridColumns(n), numRows], block: 256 }, [
    address(product),
    address(addressOf(c) + start * ldc * 2),
    pointer(bias),
    i64(n),
    i64(ldc),
    f32(beta),
  ]);
}

function gridColumns(n: number): number {
  return Math.min(64, Math.ceil(n / 256));
}
