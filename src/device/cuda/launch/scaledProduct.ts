/**
 * Products of codes with scales by kernels of ours that every GPU has: few rows from the codes, and what is left to do before and after a
 * product of many rows by the library in bf16. Knows nothing of the library.
 */
import { dtypeBytes } from "../../../base/index.ts";
import type { OpArguments, TensorArgument } from "../../contract.ts";
import {
  address,
  addressOf,
  floatDtype,
  i32,
  i64,
  perFloat,
  pointer,
  type LaunchContext,
} from "../launcher.ts";
import { ceilDiv } from "./grid.ts";
import { launchDequantiseRows, launchFewRows } from "./quantise.ts";

type ScaledArguments = OpArguments<"matmulScaled">;

/** Rows of a up to which b is read from its codes for each eight of them. */
export const mostFewRows = 16;
/** A grid has at most 65,535 rows. */
const mostGridRows = 65_535;
const threads = 256;
/** As quantised.cuh counts formats. */
const formatE4m3 = 3;

const scaleKernel = perFloat("scaled_product.cu", "scale_product");

/** Queues a product of few rows, and says whether it did. Throws DisposedError. */
export function runFewScaledRows(context: LaunchContext, args: ScaledArguments): boolean {
  const { a, aScales, b, bScales, bias, c, m, n, k, ldc } = args;
  if (m > mostFewRows) return false;
  const weight = { codes: b, scales: bScales, groupSize: k, format: formatE4m3, scaleOffset: 0 };
  launchFewRows(context, { ...weight, x: a, xScales: aScales, bias, y: c, m, n, k, yRowStride: ldc });
  return true;
}

/** Queues the numbers of codes (numRows, width) in bf16, without their scales, to address `to`. */
export function launchWiden(
  context: LaunchContext,
  { codes, to, numRows, width }: { codes: TensorArgument; to: number; numRows: number; width: number },
): void {
  launchDequantiseRows(context, { codes, scales: undefined, y: to, dtype: "bf16", numRows, width });
}

/** Queues rows `start` and on of c from their f32 sums (numRows, n), contiguous. */
export function launchScale(
  context: LaunchContext,
  { aScales, bScales, bias, c, n, ldc }: ScaledArguments,
  { sums, start, numRows }: { sums: number; start: number; numRows: number },
): void {
  const dtype = floatDtype("matmulScaled", c);
  for (let row = 0; row < numRows; row += mostGridRows)
    context.launch(
      scaleKernel[dtype],
      { grid: [ceilDiv(n, threads), Math.min(mostGridRows, numRows - row)], block: threads },
      [
        address(sums + row * n * 4),
        address(addressOf(aScales) + (start + row) * 4),
        pointer(bScales),
        pointer(bias),
        address(addressOf(c) + (start + row) * ldc * dtypeBytes(dtype)),
        i64(n),
        i64(ldc),
        i32(Number(bias?.dtype === "bf16")),
      ],
    );
}
