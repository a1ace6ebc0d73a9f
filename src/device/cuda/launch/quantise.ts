/** Launchers of quantised weights: to codes, back, and products of a few rows. */
import type { OpArguments, TensorArgument } from "../../contract.ts";
import {
  address,
  addressOf,
  cudaTypes,
  floatDtype,
  i32,
  i64,
  kernel,
  perFloat,
  pointer,
  structure,
  type CudaKernels,
  type KernelReference,
  type LaunchContext,
} from "../launcher.ts";
import { ceilDiv, overlapping } from "./grid.ts";
import { launchRowCodes, rowFamily } from "./rowCodes.ts";

const quantiseKernel = perFloat("quantise.cu", "quantise");
const dequantiseKernel = perFloat("quantise.cu", "dequantise");
const rowKernels = rowFamily("quantiseRows", "quantise_rows.cu", "quantise_rows");
const dequantiseRowsKernel = perFloat("quantise_rows.cu", "dequantise_rows");
const dequantiseWhole = perFloat("quantise.cu", "dequantise_whole");

const threads = 256;
/** Elements of dequantise's threads. */
const pieceElements = 8;
/** Pieces of a thread of dequantise_whole. */
const batch = 4;
const mostBlocks = 16_384;

/** Lines of the weight that a warp takes, warps of a block, and rows of x that a block may take. */
const lines = 2;
const numWarps = 8;
const tokenCounts = [1, 2, 4, 8] as const;

type FloatName = "f32" | "bf16";

/** By type of x, dtype of y, and place in `tokenCounts`. */
const products = {
  f32: { f32: productsOf("f32", "f32"), bf16: productsOf("f32", "bf16") },
  bf16: { f32: productsOf("bf16", "f32"), bf16: productsOf("bf16", "bf16") },
  e4m3: { f32: productsOf("e4m3", "f32"), bf16: productsOf("e4m3", "bf16") },
} as const;

function productsOf(x: FloatName | "e4m3", y: FloatName): readonly KernelReference[] {
  return tokenCounts.map((tokens) =>
    kernel({
      file: "matmul_quantised.cu",
      entry: "matmul_quantised",
      defines: { T: x === "e4m3" ? x : cudaTypes[x], Out: cudaTypes[y], LINES: lines, TOKENS: tokens },
    }),
  );
}

interface ScaleArguments {
  readonly scales?: TensorArgument | undefined;
  readonly scaleCodes?: TensorArgument | undefined;
  readonly scaleTable?: TensorArgument | undefined;
  readonly scaleScales?: TensorArgument | undefined;
  readonly scaleOffset: number;
}

const scalesWords = 5;

/** `Scales` of quantised.cuh into words `at` and after. */
function putScales(words: BigInt64Array, at: number, args: ScaleArguments): void {
  const { scales, scaleCodes, scaleTable, scaleScales, scaleOffset } = args;
  for (const [index, tensor] of [scales, scaleCodes, scaleTable, scaleScales].entries())
    words[at + index] = tensor === undefined ? 0n : BigInt(addressOf(tensor));
  new Float32Array(words.buffer)[(at + 4) * 2] = scaleOffset;
}

export const quantiseKernels = {
  quantise: (context, { x, codes, scales, numRows, width, groupSize, format }) => {
    const groupsPerRow = ceilDiv(width, groupSize);
    const grid = ceilDiv(numRows * groupsPerRow, threads / 32);
    context.launch(quantiseKernel[floatDtype("quantise", x)], { grid, block: threads }, [
      pointer(x),
      pointer(codes),
      pointer(scales),
      i64(numRows),
      i64(width),
      i64(groupSize),
      i64(groupsPerRow),
      i32(format),
    ]);
  },

  quantiseRows: (context, args) => {
    launchRowCodes(context, rowKernels, args);
  },

  dequantiseRows: (context, { codes, scales, y, numRows, width }) => {
    const dtype = floatDtype("dequantiseRows", y);
    launchDequantiseRows(context, { codes, scales, y: addressOf(y), dtype, numRows, width });
  },

  dequantise: (context, { codes, y, numRows, width, groupSize, format, ...scales }) => {
    const words = new BigInt64Array(scalesWords);
    putScales(words, 0, scales);
    const isWhole =
      width % groupSize === 0 &&
      groupSize >= pieceElements &&
      Number.isInteger(Math.log2(groupSize)) &&
      addressOf(codes) % 8 === 0 &&
      addressOf(y) % 16 === 0;
    if (isWhole) {
      const numPieces = (numRows * width) / pieceElements;
      const shape = { grid: ceilDiv(numPieces, threads * batch), block: threads };
      context.launch(dequantiseWhole[floatDtype("dequantise", y)], shape, [
        pointer(codes),
        pointer(y),
        structure(new Uint8Array(words.buffer), 8),
        i64(numPieces),
        i32(Math.log2(groupSize)),
        i32(format),
      ]);
      return;
    }
    const grid = Math.min(mostBlocks, ceilDiv(numRows * ceilDiv(width, pieceElements), threads));
    context.launch(dequantiseKernel[floatDtype("dequantise", y)], { grid, block: threads }, [
      pointer(codes),
      pointer(y),
      structure(new Uint8Array(words.buffer), 8),
      i64(numRows),
      i64(width),
      i64(groupSize),
      i64(ceilDiv(width, groupSize)),
      i32(format),
    ]);
  },

  matmulQuantised: (context, args) => {
    launchFewRows(context, { ...args, xScales: undefined, yRowStride: args.n });
  },
} satisfies CudaKernels;

interface DequantiseRows {
  readonly codes: TensorArgument;
  /** Undefined: the codes' own numbers, which bf16 holds exactly. */
  readonly scales: TensorArgument | undefined;
  /** Address of the result. */
  readonly y: number;
  readonly dtype: FloatName;
  readonly numRows: number;
  readonly width: number;
}

/** Queues the numbers of contiguous rows of E4M3 codes. */
export function launchDequantiseRows(context: LaunchContext, args: DequantiseRows): void {
  const { codes, scales, y, dtype, numRows, width } = args;
  if (width === 0) return;
  const grid = Math.min(mostBlocks, ceilDiv(numRows * width, threads * pieceElements));
  context.launch(dequantiseRowsKernel[dtype], overlapping(context, { grid, block: threads }), [
    pointer(codes),
    pointer(scales),
    address(y),
    i64(numRows),
    i64(width),
  ]);
}

type FewRows = Omit<OpArguments<"matmulQuantised">, "groupSize" | "format"> & {
  readonly groupSize: number;
  /** As quantised.cuh counts them. */
  readonly format: number;
  /** Of x in E4M3. */
  readonly xScales: TensorArgument | undefined;
  readonly yRowStride: number;
};

/** Queues a product of few rows with a weight that is read from its codes. */
export function launchFewRows(context: LaunchContext, args: FewRows): void {
  const { x, xScales, codes, bias, y, m, n, k, groupSize, format, yRowStride } = args;
  if (m === 0 || n === 0) return;
  const place = tokenCounts.findIndex((count) => count >= m);
  const index = place < 0 ? tokenCounts.length - 1 : place;
  const words = new BigInt64Array(4 + scalesWords + 8);
  words[0] = BigInt(addressOf(x));
  words[1] = BigInt(addressOf(codes));
  words[2] = bias === undefined ? 0n : BigInt(addressOf(bias));
  words[3] = BigInt(addressOf(y));
  putScales(words, 4, args);
  const xScalesAddress = xScales === undefined ? 0 : addressOf(xScales);
  const integers = [xScalesAddress, yRowStride, m, n, k, groupSize, ceilDiv(k, groupSize)];
  words.set(integers.map(BigInt), 4 + scalesWords);
  const isBiasBf16 = bias !== undefined && floatDtype("matmulQuantised", bias) === "bf16";
  new Int32Array(words.buffer).set([format, Number(isBiasBf16)], 2 * (4 + scalesWords + integers.length));
  const xType = xScales === undefined ? floatDtype("matmulQuantised", x) : "e4m3";
  const kernels = products[xType][floatDtype("matmulQuantised", y)];
  const grid = [ceilDiv(n, numWarps * lines), ceilDiv(m, tokenCounts[index])] as const;
  context.launch(kernels[index], { grid, block: numWarps * 32 }, [
    structure(new Uint8Array(words.buffer), 8),
  ]);
}
