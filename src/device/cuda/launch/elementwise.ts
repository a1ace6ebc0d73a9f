/** Launchers of fill, convert, add, axpby, scaleRows and randomNormal. */
import { dtypeBytes, DtypeError, encodeValues, type Dtype } from "../../../base/index.ts";
import {
  addressOf,
  f32,
  i32,
  i64,
  kernel,
  pointer,
  structure,
  type CudaKernels,
  type KernelReference,
} from "../launcher.ts";
import { bf16Flags, ceilDiv } from "./grid.ts";

const file = "elementwise.cu";
const entry = (name: string): KernelReference => kernel({ file, entry: name });

const fillKernel = entry("fill");
const addKernel = entry("add");
const axpbyKernel = entry("axpby");
const scaleRowsKernel = entry("scale_rows");
const randomNormalKernel = entry("random_normal");
const convertAny = entry("convert_any");
const conversions = new Map(
  [
    "f32_f16",
    "f32_f64",
    "bf16_f16",
    "bf16_f64",
    "f16_f32",
    "f16_bf16",
    "f16_f64",
    "f64_f32",
    "f64_bf16",
    "f64_f16",
  ].map((pair) => [pair, entry(`convert_${pair}`)]),
);

const threads = 256;
/** elementwise.cu: threads * quads_per_thread quads of four. */
const elementsPerBlock = 4096;
/** Kernels that loop over their elements need no more blocks than this. */
const mostBlocks = 16_384;

function isQuick(dtype: Dtype): boolean {
  return dtype === "f32" || dtype === "bf16";
}

export const elementwiseKernels = {
  fill: (context, { y, numElements, value }) => {
    const elementBytes = dtypeBytes(y.dtype);
    const numBytes = numElements * elementBytes;
    const element = encodeValues(y.dtype, [value]);
    if (element.every((byte) => byte === element[0])) {
      context.memset(addressOf(y), element[0], numBytes);
      return;
    }
    const pattern = new Uint8Array(8);
    for (let at = 0; at < 8; at += elementBytes) pattern.set(element, at);
    const grid = Math.min(mostBlocks, ceilDiv(numBytes, 16 * threads));
    context.launch(fillKernel, { grid, block: threads }, [
      pointer(y),
      i64(numBytes),
      structure(pattern, 8),
      i32(elementBytes),
    ]);
  },

  convert: (context, { x, y, numElements }) => {
    if (x.dtype === y.dtype) {
      if (addressOf(x) !== addressOf(y))
        context.copy(addressOf(y), addressOf(x), numElements * dtypeBytes(x.dtype));
      return;
    }
    if (isQuick(x.dtype) && isQuick(y.dtype)) {
      const flags = bf16Flags("convert", { 1: x, 4: y });
      const grid = ceilDiv(numElements, elementsPerBlock);
      context.launch(convertAny, { grid, block: threads }, [
        pointer(x),
        pointer(y),
        i64(numElements),
        i32(flags),
      ]);
      return;
    }
    const conversion = conversions.get(`${x.dtype}_${y.dtype}`);
    if (conversion === undefined)
      throw new DtypeError(
        "cuda",
        `expected f32, bf16, f16 or f64 for convert, got ${x.dtype} to ${y.dtype}`,
      );
    const grid = Math.min(mostBlocks, ceilDiv(numElements, threads));
    context.launch(conversion, { grid, block: threads }, [pointer(x), pointer(y), i64(numElements)]);
  },

  add: (context, { a, b, y, numElements }) => {
    const flags = bf16Flags("add", { 1: a, 2: b, 4: y });
    const grid = ceilDiv(numElements, elementsPerBlock);
    context.launch(addKernel, { grid, block: threads }, [
      pointer(a),
      pointer(b),
      pointer(y),
      i64(numElements),
      i32(flags),
    ]);
  },

  axpby: (context, { x, y, numElements, alpha, beta }) => {
    const flags = bf16Flags("axpby", { 1: x, 4: y });
    const grid = ceilDiv(numElements, elementsPerBlock);
    context.launch(axpbyKernel, { grid, block: threads }, [
      pointer(x),
      pointer(y),
      i64(numElements),
      i32(flags),
      f32(alpha),
      f32(beta),
    ]);
  },

  scaleRows: (context, { x, rowScales, y, numRows, width }) => {
    const grid = Math.min(mostBlocks, numRows);
    context.launch(scaleRowsKernel, { grid, block: threads }, [
      pointer(x),
      pointer(rowScales),
      pointer(y),
      i64(numRows),
      i64(width),
      i32(bf16Flags("scaleRows", { 1: x, 4: y })),
    ]);
  },

  randomNormal: (context, { y, numElements, seed, counter, mean, std }) => {
    const flags = bf16Flags("randomNormal", { 4: y });
    const grid = Math.min(mostBlocks, ceilDiv(numElements, 4 * threads));
    context.launch(randomNormalKernel, { grid, block: threads }, [
      pointer(y),
      i64(numElements),
      i32(flags),
      i64(seed),
      i64(counter),
      f32(mean),
      f32(std),
    ]);
  },
} satisfies CudaKernels;
