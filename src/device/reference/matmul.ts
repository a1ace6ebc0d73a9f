/**
 * Reference: the matrix product. It alone is written for speed too, since it is nearly all of the work where the reference is the
 * fallback: dense float64 copies, two rows by four terms of the sum at a time, running along rows of b.
 */
import type { TensorArgument } from "../contract.ts";
import { read, readRows, writeRows } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

interface Operand {
  rows: number;
  columns: number;
  stride: number;
  isTransposed: boolean;
}

/** op(x) (rows, columns), dense. */
function dense(x: TensorArgument, { rows, columns, stride, isTransposed }: Operand): Float64Array {
  if (!isTransposed) return readRows(x, { numRows: rows, width: columns, stride });
  return transposed(readRows(x, { numRows: columns, width: rows, stride }), columns, rows);
}

/** x (numRows, width) -> (width, numRows), by tiles that stay in the cache. */
function transposed(x: Float64Array, numRows: number, width: number): Float64Array {
  const tile = 32;
  const y = new Float64Array(x.length);
  for (let firstRow = 0; firstRow < numRows; firstRow += tile) {
    const endRow = Math.min(firstRow + tile, numRows);
    for (let firstColumn = 0; firstColumn < width; firstColumn += tile) {
      const endColumn = Math.min(firstColumn + tile, width);
      for (let row = firstRow; row < endRow; row++) {
        for (let column = firstColumn; column < endColumn; column++) {
          y[column * numRows + row] = x[row * width + column];
        }
      }
    }
  }
  return y;
}

interface Product {
  /** (m, k) */
  left: Float64Array;
  /** (k, n) */
  right: Float64Array;
  /** (m, n) */
  sums: Float64Array;
  n: number;
  k: number;
}

/** Rows i and i + 1 of `sums` += those of `left` times `right`, over the first k - k mod 4 terms. */
function multiplyTwoRows({ left, right, sums, n, k }: Product, i: number): void {
  const sumAt = i * n;
  const nextAt = sumAt + n;
  for (let p = 0; p + 4 <= k; p += 4) {
    const xAt = i * k + p;
    const [x0, x1, x2, x3] = [left[xAt], left[xAt + 1], left[xAt + 2], left[xAt + 3]];
    const yAt = xAt + k;
    const [y0, y1, y2, y3] = [left[yAt], left[yAt + 1], left[yAt + 2], left[yAt + 3]];
    const row0 = p * n;
    const row1 = row0 + n;
    const row2 = row1 + n;
    const row3 = row2 + n;
    for (let j = 0; j < n; j++) {
      const r0 = right[row0 + j];
      const r1 = right[row1 + j];
      const r2 = right[row2 + j];
      const r3 = right[row3 + j];
      sums[sumAt + j] += x0 * r0 + x1 * r1 + x2 * r2 + x3 * r3;
      sums[nextAt + j] += y0 * r0 + y1 * r1 + y2 * r2 + y3 * r3;
    }
  }
}

/** Row i of `sums` += that of `left` times `right`, over the terms from `begin` on. */
function multiplyRow({ left, right, sums, n, k }: Product, i: number, begin: number): void {
  for (let p = begin; p < k; p++) {
    const x = left[i * k + p];
    for (let j = 0; j < n; j++) sums[i * n + j] += x * right[p * n + j];
  }
}

/** left right (m, n). */
function multiply(
  left: Float64Array,
  right: Float64Array,
  { m, n, k }: { m: number; n: number; k: number },
): Float64Array {
  const sums = new Float64Array(m * n);
  const product = { left, right, sums, n, k };
  for (let i = 0; i + 2 <= m; i += 2) multiplyTwoRows(product, i);
  const numPaired = m - (m % 2);
  for (let i = 0; i < m; i++) multiplyRow(product, i, i < numPaired ? k - (k % 4) : 0);
  return sums;
}

export const matmulKernels = {
  matmul: ({ a, b, c, bias, m, n, k, lda, ldb, ldc, transposeA, transposeB, alpha, beta }) => {
    const left = dense(a, { rows: m, columns: k, stride: lda, isTransposed: transposeA === 1 });
    const right = dense(b, { rows: k, columns: n, stride: ldb, isTransposed: transposeB === 1 });
    const sums = multiply(left, right, { m, n, k });
    const layout = { numRows: m, width: n, stride: ldc };
    // With beta = 0 what c held must not matter, NaN included.
    const previous = beta === 0 ? undefined : readRows(c, layout);
    const shift = bias === undefined ? new Float64Array(n) : read(bias, n);
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        const at = i * n + j;
        sums[at] = alpha * sums[at] + (previous === undefined ? 0 : beta * previous[at]) + shift[j];
      }
    }
    writeRows(c, sums, layout);
  },
} satisfies Partial<ReferenceKernels>;
