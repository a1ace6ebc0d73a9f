/** Reference: the matrix product, in the order i, p, j that a machine without a compiler likes best. */
import type { OpArguments } from "../contract.ts";
import { read, writeRows } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

/** op(x) (rows, columns) as a dense row-major copy. */
function dense(
  x: OpArguments<"matmul">["a"],
  {
    rows,
    columns,
    stride,
    isTransposed,
  }: { rows: number; columns: number; stride: number; isTransposed: boolean },
): Float64Array {
  const values = new Float64Array(rows * columns);
  if (rows === 0 || columns === 0) return values;
  const extent = isTransposed ? (columns - 1) * stride + rows : (rows - 1) * stride + columns;
  const stored = read(x, extent);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      values[row * columns + column] = isTransposed
        ? stored[column * stride + row]
        : stored[row * stride + column];
    }
  }
  return values;
}

export const matmulKernels = {
  matmul: ({ a, b, c, bias, m, n, k, lda, ldb, ldc, transposeA, transposeB, alpha, beta }) => {
    if (m === 0 || n === 0) return;
    const left = dense(a, { rows: m, columns: k, stride: lda, isTransposed: transposeA === 1 });
    const right = dense(b, { rows: k, columns: n, stride: ldb, isTransposed: transposeB === 1 });
    const shift = bias === undefined ? new Float64Array(n) : read(bias, n);
    const out = read(c, (m - 1) * ldc + n);
    const sums = new Float64Array(n);
    for (let i = 0; i < m; i++) {
      sums.fill(0);
      for (let p = 0; p < k; p++) {
        const factor = left[i * k + p];
        for (let j = 0; j < n; j++) sums[j] += factor * right[p * n + j];
      }
      for (let j = 0; j < n; j++) {
        const previous = beta === 0 ? 0 : beta * out[i * ldc + j];
        out[i * ldc + j] = alpha * sums[j] + previous + shift[j];
      }
    }
    writeRows(c, out, { numRows: m, width: n, rowStride: ldc });
  },
} satisfies Partial<ReferenceKernels>;
