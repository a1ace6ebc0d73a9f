/**
 * Reference: quantised weights. The codes are made in f32, every step rounded, as the table says, so that all backends give the
 * same ones; values and sums are float64.
 */
import { invariant } from "../../base/index.ts";
import type { TensorArgument } from "../contract.ts";
import { isPacked, nf4Values, groupFormats } from "../ops.ts";
import { e4m3ValueOf, quantiseE4m3, roundEven } from "./float8.ts";
import { read, readRows, write, writeRows } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

interface Layout {
  numRows: number;
  width: number;
  groupSize: number;
  format: number;
}

interface GroupScales {
  scales?: TensorArgument | undefined;
  scaleCodes?: TensorArgument | undefined;
  scaleTable?: TensorArgument | undefined;
  scaleScales?: TensorArgument | undefined;
  scaleOffset: number;
}

/** Groups of the second quantisation. */
const scaleGroupSize = 256;

function checkLayout({ width, groupSize, format }: Layout): void {
  invariant(format <= 2, `a format of quantised weights, got ${format}`);
  const fits = groupSize > 0 && (groupSize % 32 === 0 || groupSize >= width);
  invariant(fits, `groups of a multiple of 32 or of whole rows, got ${groupSize} of ${width}`);
}

function nearestNf4(x: number): number {
  let code = 0;
  while (code < 15 && x > Math.fround((nf4Values[code] + nf4Values[code + 1]) / 2)) code++;
  return code;
}

interface QuantisedGroup {
  scale: number;
  codes: number[];
}

function quantiseGroup(values: Float64Array, format: number): QuantisedGroup {
  const { fround } = Math;
  let extreme = 0;
  for (const value of values) if (Math.abs(value) > Math.abs(extreme)) extreme = value;
  const peak = Math.abs(extreme);
  const each = (code: (value: number) => number): number[] => Array.from(values, code);
  if (format === groupFormats.int8) {
    if (peak === 0) return { scale: 0, codes: each(() => 0) };
    const inverse = fround(127 / peak);
    return { scale: fround(peak / 127), codes: each((x) => roundEven(fround(x * inverse)) & 0xff) };
  }
  if (format === groupFormats.nf4) {
    if (peak === 0) return { scale: 0, codes: each(() => 7) };
    const inverse = fround(1 / peak);
    return { scale: peak, codes: each((x) => nearestNf4(fround(x * inverse))) };
  }
  const scale = fround(extreme / -8);
  if (scale === 0) return { scale: 0, codes: each(() => 8) };
  const inverse = fround(1 / scale);
  return { scale, codes: each((x) => Math.min(15, 8 + roundEven(fround(x * inverse)))) };
}

/** Codes of one row as they lie in memory. */
function packRow(codes: readonly number[], format: number): number[] {
  if (!isPacked(format)) return [...codes];
  return Array.from({ length: Math.ceil(codes.length / 2) }, (_, i) => {
    return (codes[2 * i] << 4) | (2 * i + 1 < codes.length ? codes[2 * i + 1] : 0);
  });
}

function readScales(
  { scales, scaleCodes, scaleTable, scaleScales, scaleOffset }: GroupScales,
  count: number,
): Float64Array {
  if (scales !== undefined) return read(scales, count);
  invariant(
    scaleCodes !== undefined && scaleTable !== undefined && scaleScales !== undefined,
    "scales, or their codes with table and scales",
  );
  const table = read(scaleTable, 256);
  const outer = read(scaleScales, Math.ceil(count / scaleGroupSize));
  return read(scaleCodes, count).map(
    (code, g) => table[code] * outer[Math.floor(g / scaleGroupSize)] + scaleOffset,
  );
}

/** w (numRows, width) in float64. */
function dequantised(codes: TensorArgument, layout: Layout, groupScales: GroupScales): Float64Array {
  checkLayout(layout);
  const { numRows, width, groupSize, format } = layout;
  const groupsPerRow = Math.ceil(width / groupSize);
  const scales = readScales(groupScales, numRows * groupsPerRow);
  const rowBytes = isPacked(format) ? Math.ceil(width / 2) : width;
  const bytes = read(codes, numRows * rowBytes);
  const values = new Float64Array(numRows * width);
  for (let row = 0; row < numRows; row++) {
    for (let i = 0; i < width; i++) {
      const scale = scales[row * groupsPerRow + Math.floor(i / groupSize)];
      values[row * width + i] = valueOf(bytes, { at: row * rowBytes, index: i, format }) * scale;
    }
  }
  return values;
}

function valueOf(
  bytes: Float64Array,
  { at, index, format }: { at: number; index: number; format: number },
): number {
  if (!isPacked(format)) return (bytes[at + index] << 24) >> 24;
  const byte = bytes[at + (index >> 1)];
  const code = index % 2 === 0 ? byte >> 4 : byte & 15;
  return format === groupFormats.nf4 ? nf4Values[code] : code - 8;
}

/** Codes and scales of contiguous rows (numRows, width). */
export function writeRowCodes(
  values: Float64Array,
  {
    codes,
    scales,
    numRows,
    width,
  }: { codes: TensorArgument; scales: TensorArgument; numRows: number; width: number },
): void {
  for (let row = 0; row < numRows; row++) {
    const found = quantiseE4m3(values.subarray(row * width, (row + 1) * width));
    write(scales, [found.scale], row);
    write(codes, found.codes, row * width);
  }
}

/** The numbers of E4M3 codes, without scales. */
function readCodes(codes: TensorArgument, count: number): Float64Array {
  return read(codes, count).map(e4m3ValueOf);
}

/** a (m, k) times the transpose of b (n, k). */
function productOf(
  a: Float64Array,
  b: Float64Array,
  { m, n, k }: { m: number; n: number; k: number },
): Float64Array {
  const sums = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let p = 0; p < k; p++) sum += a[i * k + p] * b[j * k + p];
      sums[i * n + j] = sum;
    }
  }
  return sums;
}

export const quantiseKernels = {
  quantise: ({ x, codes, scales, numRows, width, groupSize, format }) => {
    checkLayout({ numRows, width, groupSize, format });
    const groupsPerRow = Math.ceil(width / groupSize);
    const rowBytes = isPacked(format) ? Math.ceil(width / 2) : width;
    for (let row = 0; row < numRows; row++) {
      const values = read(x, width, row * width);
      const groups = Array.from({ length: groupsPerRow }, (_, g) =>
        quantiseGroup(values.subarray(g * groupSize, (g + 1) * groupSize), format),
      );
      write(
        scales,
        groups.map(({ scale }) => scale),
        row * groupsPerRow,
      );
      const rowCodes = groups.flatMap((group) => group.codes);
      write(codes, packRow(rowCodes, format), row * rowBytes);
    }
  },

  quantiseRows: ({ x, codes, scales, numRows, width, xRowStride }) => {
    writeRowCodes(readRows(x, { numRows, width, stride: xRowStride }), { codes, scales, numRows, width });
  },

  dequantise: ({ codes, y, numRows, width, groupSize, format, ...groupScales }) => {
    write(y, dequantised(codes, { numRows, width, groupSize, format }, groupScales));
  },

  matmulQuantised: ({ x, codes, bias, y, m, n, k, groupSize, format, ...groupScales }) => {
    const weight = dequantised(codes, { numRows: n, width: k, groupSize, format }, groupScales);
    const shift = bias === undefined ? new Float64Array(n) : read(bias, n);
    const sums = productOf(read(x, m * k), weight, { m, n, k });
    write(
      y,
      sums.map((sum, i) => sum + shift[i % n]),
    );
  },

  dequantiseRows: ({ codes, scales, y, numRows, width }) => {
    const rowScales = read(scales, numRows);
    const values = readCodes(codes, numRows * width);
    write(
      y,
      values.map((value, i) => value * rowScales[Math.floor(i / width)]),
    );
  },

  matmulScaled: ({ a, aScales, b, bScales, bias, c, m, n, k, ldc }) => {
    const [left, right] = [read(aScales, m), read(bScales, n)];
    const shift = bias === undefined ? new Float64Array(n) : read(bias, n);
    const sums = productOf(readCodes(a, m * k), readCodes(b, n * k), { m, n, k });
    const results = sums.map((sum, i) => sum * left[Math.floor(i / n)] * right[i % n] + shift[i % n]);
    writeRows(c, results, { numRows: m, width: n, stride: ldc });
  },
} satisfies Partial<ReferenceKernels>;
