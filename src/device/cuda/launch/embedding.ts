/** Launchers of embeddingForward, embeddingBackward and sumRows. */
import { dtypeBytes, DtypeError } from "../../../base/index.ts";
import { address, floatDtype, i32, i64, kernel, pointer, type CudaKernels } from "../launcher.ts";
import { bf16Flags, ceilDiv, overlapping } from "./grid.ts";

const file = "embedding.cu";
const gathers = {
  f32: {
    f32: kernel({ file, entry: "gather_f32_f32" }),
    bf16: kernel({ file, entry: "gather_f32_bf16" }),
  },
  bf16: {
    f32: kernel({ file, entry: "gather_bf16_f32" }),
    bf16: kernel({ file, entry: "gather_bf16_bf16" }),
  },
} as const;
const sumRowKernels = {
  f32: kernel({ file, entry: "sum_rows_f32" }),
  bf16: kernel({ file, entry: "sum_rows_bf16" }),
} as const;
const orderRows = kernel({ file, entry: "order_rows" });
const addRuns = kernel({ file, entry: "add_runs" });
const addCrossingRuns = kernel({ file, entry: "add_crossing_runs" });

const threads = 256;
/** Rows of the order that one block adds up. */
const chunkRows = 32;

export const embeddingKernels = {
  embeddingForward: (context, { tokens, weight, y, numRows, width, vocabSize }) => {
    const gather = gathers[floatDtype("embeddingForward", weight)][floatDtype("embeddingForward", y)];
    const grid = Math.min(numRows, 65_535);
    context.launch(gather, overlapping(context, { grid, block: threads }), [
      pointer(tokens),
      pointer(weight),
      pointer(y),
      i64(numRows),
      i64(width),
      i64(vocabSize),
    ]);
  },

  embeddingBackward: (context, { tokens, dy, dweight, numRows, width, vocabSize }) => {
    if (numRows === 0 || width === 0) return;
    if (tokens.dtype !== "i32")
      throw new DtypeError("cuda", `expected i32 tokens for embeddingBackward, got ${tokens.dtype}`);
    const numChunks = ceilDiv(numRows, chunkRows);
    const orderBytes = 256 * ceilDiv(numRows * dtypeBytes("i32"), 256);
    const order = context.workspace(orderBytes + numChunks * 2 * width * 4);
    const flags = bf16Flags("embeddingBackward", { 1: dy, 4: dweight });
    const parameters = [
      pointer(tokens),
      address(order),
      pointer(dy),
      pointer(dweight),
      address(order + orderBytes),
      i64(width),
      i64(vocabSize),
      i32(numRows),
      i32(chunkRows),
      i32(flags),
    ];
    context.launch(orderRows, { grid: ceilDiv(numRows, threads), block: threads }, [
      pointer(tokens),
      address(order),
      i32(numRows),
    ]);
    const grid = [numChunks, Math.min(64, ceilDiv(width, threads))] as const;
    context.launch(addRuns, { grid, block: threads, sharedBytes: chunkRows * 2 * 4 }, parameters);
    context.launch(addCrossingRuns, { grid, block: threads }, parameters);
  },

  sumRows: (context, { x, starts, sources, y, numRows, width, numSources }) => {
    const dtype = floatDtype("sumRows", x);
    if (y.dtype !== dtype)
      throw new DtypeError("cuda", `expected one dtype for sumRows, got ${dtype} and ${y.dtype}`);
    const grid = Math.min(numRows, 65_535);
    context.launch(sumRowKernels[dtype], overlapping(context, { grid, block: threads }), [
      pointer(x),
      pointer(starts),
      pointer(sources),
      pointer(y),
      i64(numRows),
      i64(width),
      i64(numSources),
    ]);
  },
} satisfies CudaKernels;
