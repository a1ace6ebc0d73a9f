/** Launchers of what adapters need beside matrix products. */
import {
  address,
  f32,
  floatDtype,
  i32,
  i64,
  kernel,
  perFloat,
  pointer,
  type CudaKernels,
} from "../launcher.ts";
import { bf16Flags, ceilDiv, clamp } from "./grid.ts";

const file = "adapter.cu";
// Only the gather depends on T; one definition for the others saves modules.
const entry = (name: string) => kernel({ file, entry: name, defines: { T: "float" } });
const dropoutKernel = entry("dropout");
const multiplyKernel = entry("multiply");
const scaleColumnsKernel = entry("scale_columns");
const columnDotKernel = entry("column_dot");
const finishColumnDot = entry("finish_column_dot");
const rowNormsKernel = entry("row_norms");
const promptScatter = entry("prompt_scatter");
const promptGather = perFloat(file, "prompt_gather_T");

const threads = 256;
const mostBlocks = 16_384;
/** adapter.cu: blocks over columns. */
const columnThreads = 32;
const rowThreads = 8;
const columnBlock = [columnThreads, rowThreads] as const;

/** Rows of a block, so that about four blocks fall on each multiprocessor. */
function rowsPerBlock(numRows: number, columnBlocks: number, multiprocessorCount: number): number {
  const wanted = ceilDiv(4 * multiprocessorCount, columnBlocks);
  return Math.max(8 * rowThreads, ceilDiv(numRows, wanted));
}

export const adapterKernels = {
  dropout: (context, { x, y, numElements, seed, counter, probability }) => {
    const grid = clamp(ceilDiv(numElements, 4 * threads), 0, mostBlocks);
    context.launch(dropoutKernel, { grid, block: threads }, [
      pointer(x),
      pointer(y),
      i64(numElements),
      i32(bf16Flags("dropout", { 1: x, 4: y })),
      i64(seed),
      i64(counter),
      f32(probability),
      f32(1 / (1 - probability)),
    ]);
  },

  multiply: (context, { a, b, y, numElements }) => {
    const grid = clamp(ceilDiv(numElements, threads), 0, mostBlocks);
    context.launch(multiplyKernel, { grid, block: threads }, [
      pointer(a),
      pointer(b),
      pointer(y),
      i64(numElements),
      i32(bf16Flags("multiply", { 1: a, 2: b, 4: y })),
    ]);
  },

  scaleColumns: (context, { x, scale, divisor, y, numRows, width, xRowStride, yRowStride }) => {
    const columnBlocks = ceilDiv(width, columnThreads);
    const rows = rowsPerBlock(numRows, Math.max(1, columnBlocks), context.multiprocessorCount);
    const grid = [columnBlocks, ceilDiv(numRows, rows)] as const;
    context.launch(scaleColumnsKernel, { grid, block: columnBlock }, [
      pointer(x),
      pointer(scale),
      pointer(divisor),
      pointer(y),
      i64(numRows),
      i64(width),
      i64(xRowStride),
      i64(yRowStride),
      i64(rows),
      i32(bf16Flags("scaleColumns", { 1: x, 2: scale, 4: y, 8: divisor })),
    ]);
  },

  columnDot: (context, { a, b, divisor, y, numRows, width, aRowStride, bRowStride, beta }) => {
    if (width === 0) return;
    const columnBlocks = ceilDiv(width, columnThreads);
    const rows = rowsPerBlock(numRows, columnBlocks, context.multiprocessorCount);
    const rowBlocks = ceilDiv(numRows, rows);
    const partials = context.workspace(Math.max(1, rowBlocks) * width * 4);
    context.launch(columnDotKernel, { grid: [columnBlocks, rowBlocks], block: columnBlock }, [
      pointer(a),
      pointer(b),
      address(partials),
      i64(numRows),
      i64(width),
      i64(aRowStride),
      i64(bRowStride),
      i64(rows),
      i32(bf16Flags("columnDot", { 1: a, 2: b })),
    ]);
    context.launch(finishColumnDot, { grid: ceilDiv(width, threads), block: threads }, [
      address(partials),
      pointer(divisor),
      pointer(y),
      i64(rowBlocks),
      i64(width),
      i32(bf16Flags("columnDot", { 4: y, 8: divisor })),
      f32(beta),
    ]);
  },

  rowNorms: (context, { x, norms, numRows, width }) => {
    context.launch(rowNormsKernel, { grid: numRows, block: threads }, [
      pointer(x),
      pointer(norms),
      i64(width),
      i32(bf16Flags("rowNorms", { 1: x, 4: norms })),
    ]);
  },

  promptEmbeddingForward: (context, args) => {
    const { tokens, weight, prompt, y, numRows, width, vocabSize, promptLength } = args;
    const gather = promptGather[floatDtype("promptEmbeddingForward", weight)];
    context.launch(gather, { grid: numRows, block: threads }, [
      pointer(tokens),
      pointer(weight),
      pointer(prompt),
      pointer(y),
      i64(width),
      i64(vocabSize),
      i64(promptLength),
    ]);
  },

  promptEmbeddingBackward: (context, { tokens, dy, dprompt, numRows, width, vocabSize, promptLength }) => {
    if (width === 0) return;
    const grid = [promptLength, ceilDiv(width, threads)] as const;
    context.launch(promptScatter, { grid, block: threads }, [
      pointer(tokens),
      pointer(dy),
      pointer(dprompt),
      i64(numRows),
      i64(width),
      i64(vocabSize),
      i32(bf16Flags("promptEmbeddingBackward", { 1: dy, 4: dprompt })),
    ]);
  },
} satisfies CudaKernels;
