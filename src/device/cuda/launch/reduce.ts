/** Launchers of sum, sumOfSquares, clipCoefficient and columnSum; `finishColumns` also ends norm gradients. */
import type { OpArguments } from "../../contract.ts";
import {
  address,
  f32,
  f64,
  floatDtype,
  i32,
  i64,
  kernel,
  perFloat,
  pointer,
  type CudaKernels,
  type LaunchContext,
} from "../launcher.ts";
import { allowsPacks, bf16Flags, ceilDiv, clamp, packSize } from "./grid.ts";

const file = "reduce.cu";
const sumKernels = perFloat(file, "sum_T");
const sumOfSquaresKernels = perFloat(file, "sum_of_squares_T");
const sumRowsPacks = perFloat(file, "sum_rows_packs_T");
const sumRowsSingles = perFloat(file, "sum_rows_singles_T");
// They do not depend on T; a definition saves a module.
const addPartials = kernel({ file, entry: "add_partials", defines: { T: "float" } });
const clipKernel = kernel({ file, entry: "clip_coefficient", defines: { T: "float" } });
const finishColumnsKernel = kernel({ file, entry: "finish_columns", defines: { T: "float" } });

const threads = 256;
/** reduce.cu: a thread reads this many packs at a time. */
const packsPerStep = 4;
const columnThreads = 32;
const rowThreads = 8;

function addAll(
  context: LaunchContext,
  kernels: typeof sumKernels,
  { op, x, accumulator, numElements }: OpArguments<"sum"> & { op: "sum" | "sumOfSquares" },
): void {
  if (numElements === 0) return;
  const stepElements = threads * packsPerStep * packSize(x);
  const numBlocks = clamp(ceilDiv(numElements, stepElements), 1, 8 * context.multiprocessorCount);
  const partials = context.workspace(numBlocks * 8);
  context.launch(kernels[floatDtype(op, x)], { grid: numBlocks, block: threads }, [
    pointer(x),
    address(partials),
    i64(numElements),
  ]);
  context.launch(addPartials, { grid: 1, block: threads }, [
    address(partials),
    pointer(accumulator),
    i32(numBlocks),
  ]);
}

/** y[c] = beta * y[c] + sum of `numPartials` f32 rows of `width` values at `partials`. */
export function finishColumns(
  context: LaunchContext,
  {
    y,
    partials,
    numPartials,
    width,
    beta,
  }: { partials: number; numPartials: number } & Pick<OpArguments<"columnSum">, "y" | "width" | "beta">,
): void {
  const flags = bf16Flags("columnSum", { 1: y });
  const grid = ceilDiv(width, columnThreads);
  context.launch(finishColumnsKernel, { grid, block: [columnThreads, rowThreads] }, [
    address(partials),
    pointer(y),
    i64(numPartials),
    i64(width),
    i32(flags),
    f32(beta),
  ]);
}

export const reduceKernels = {
  sum: (context, args) => addAll(context, sumKernels, { ...args, op: "sum" }),

  sumOfSquares: (context, args) => addAll(context, sumOfSquaresKernels, { ...args, op: "sumOfSquares" }),

  clipCoefficient: (context, args) => {
    const { sumOfSquares, norm, coefficient, gradientScale, maxNorm, skipAboveNorm } = args;
    context.launch(clipKernel, { grid: 1, block: 1 }, [
      pointer(sumOfSquares),
      pointer(norm),
      pointer(coefficient),
      f64(gradientScale),
      f64(maxNorm),
      f64(skipAboveNorm),
    ]);
  },

  columnSum: (context, { x, y, numRows, width, beta }) => {
    if (width === 0) return;
    const usesPacks = allowsPacks([x], [width]);
    const columns = columnThreads * (usesPacks ? packSize(x) : 1);
    const columnBlocks = ceilDiv(width, columns);
    const wantedRowBlocks = ceilDiv(4 * context.multiprocessorCount, columnBlocks);
    const rowsPerBlock = Math.max(8 * rowThreads, ceilDiv(numRows, wantedRowBlocks));
    const rowBlocks = ceilDiv(numRows, rowsPerBlock);
    const partials = context.workspace(Math.max(1, rowBlocks) * width * 4);
    const kernels = usesPacks ? sumRowsPacks : sumRowsSingles;
    context.launch(
      kernels[floatDtype("columnSum", x)],
      { grid: [columnBlocks, rowBlocks], block: [columnThreads, rowThreads] },
      [pointer(x), address(partials), i64(numRows), i64(width), i64(rowsPerBlock)],
    );
    finishColumns(context, { y, partials, numPartials: rowBlocks, width, beta });
  },
} satisfies CudaKernels;
