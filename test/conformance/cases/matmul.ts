/**
 * Cases of the matrix product: all transposes, packed and strided operands, every combination of dtypes, empty and odd sizes, one row
 * and one column, and pieces of the 8B model's shapes.
 */
import { close, conformanceCase, operand, type ConformanceCase, type Operand } from "../case.ts";
import type { DataSource } from "../random.ts";
import { floatPairs, type TensorDtype } from "./common.ts";

interface Setting {
  m: number;
  n: number;
  k: number;
  transposeA?: boolean;
  transposeB?: boolean;
  /** Elements between rows beyond the width of each operand. */
  gap?: number;
  shift?: number;
  alpha?: number;
  beta?: number;
  hasBias?: boolean;
}

const transposes = [
  { transposeA: false, transposeB: false },
  { transposeA: false, transposeB: true },
  { transposeA: true, transposeB: false },
  { transposeA: true, transposeB: true },
];

const sizes: readonly (readonly [number, number, number])[] = [
  [1, 1, 1],
  [3, 5, 7],
  [17, 33, 65],
  [64, 64, 64],
  [1, 300, 257],
  [5, 1, 129],
  [130, 70, 1],
  [129, 257, 300],
];

const settings: readonly Setting[] = [
  ...sizes.flatMap(([m, n, k]) => transposes.map((transpose) => ({ m, n, k, ...transpose }))),
  ...transposes.map((transpose) => ({ m: 33, n: 47, k: 70, gap: 3, ...transpose })),
  ...transposes.map((transpose) => ({ m: 40, n: 24, k: 136, gap: 8, shift: 8, ...transpose })),
  ...transposes.map((transpose) => ({
    m: 19,
    n: 40,
    k: 31,
    alpha: 0.5,
    beta: 1,
    hasBias: true,
    gap: 1,
    ...transpose,
  })),
  { m: 16, n: 48, k: 64, alpha: -2, beta: 0.25 },
  { m: 16, n: 48, k: 64, transposeB: true, hasBias: true },
  { m: 1, n: 48, k: 64, transposeB: true, hasBias: true },
  { m: 7, n: 9, k: 64, shift: 1, transposeB: true },
  // A sum over nothing.
  { m: 3, n: 5, k: 0 },
  { m: 3, n: 5, k: 0, beta: 0.5, hasBias: true, gap: 2 },
  { m: 0, n: 5, k: 4 },
  { m: 3, n: 0, k: 4 },
  // Decoding, and gradients of weights, with the 8B model's widths.
  { m: 1, n: 1024, k: 4096, transposeB: true },
  { m: 3, n: 512, k: 4096, transposeB: true },
  { m: 8, n: 4096, k: 256 },
  { m: 512, n: 256, k: 24, transposeA: true, beta: 1 },
];

/** The operand that is op(x) (rows, columns) in the product. */
function factor(
  data: DataSource,
  {
    dtype,
    rows,
    columns,
    isTransposed,
    gap,
    shift,
  }: {
    dtype: TensorDtype;
    rows: number;
    columns: number;
    isTransposed: boolean;
    gap: number;
    shift: number;
  },
): Operand {
  const [numRows, width] = isTransposed ? [columns, rows] : [rows, columns];
  return operand(dtype, numRows, { width, stride: width + gap, shift, values: data.normal(rows * columns) });
}

function describe({ m, n, k, transposeA, transposeB, gap, shift, alpha, beta, hasBias }: Setting): string {
  const parts = [
    `(${m}, ${n}, ${k})`,
    transposeA === true ? "a^T" : "",
    transposeB === true ? "b^T" : "",
    gap === undefined ? "" : `gap ${gap}`,
    shift === undefined ? "" : `shift ${shift}`,
    alpha === undefined ? "" : `alpha ${alpha}`,
    beta === undefined ? "" : `beta ${beta}`,
    hasBias === true ? "bias" : "",
  ];
  return parts.filter((part) => part !== "").join(" ");
}

export function matmulCase(setting: Setting, dtype: TensorDtype, result: TensorDtype): ConformanceCase {
  const { m, n, k, transposeA = false, transposeB = false } = setting;
  const { gap = 0, shift = 0, alpha = 1, beta = 0, hasBias = false } = setting;
  return conformanceCase("matmul", `${dtype} to ${result} ${describe(setting)}`, (data) => {
    const a = factor(data, { dtype, rows: m, columns: k, isTransposed: transposeA, gap, shift });
    const b = factor(data, { dtype, rows: k, columns: n, isTransposed: transposeB, gap, shift });
    return {
      a,
      b,
      c: operand(result, m, {
        width: n,
        stride: n + gap,
        shift,
        ...(beta === 0 ? {} : { values: data.normal(m * n) }),
        check: close({ length: k }),
      }),
      bias: hasBias ? operand(dtype, n, { values: data.normal(n) }) : undefined,
      m,
      n,
      k,
      lda: a.stride,
      ldb: b.stride,
      ldc: n + gap,
      transposeA: Number(transposeA),
      transposeB: Number(transposeB),
      alpha,
      beta,
    };
  });
}

/** Products with one dimension of at most 64: by rows, by columns, and summed over rows. */
const thinSettings: readonly Setting[] = [
  ...[8, 16, 40, 48, 64].flatMap((rank) => [
    { m: 150, n: rank, k: 136, transposeB: true },
    { m: 130, n: rank, k: 72, gap: 8, alpha: 2, beta: 1 },
    { m: 37, n: 272, k: rank, transposeB: true, alpha: 2, beta: 1 },
    { m: 261, n: 72, k: rank, gap: 8, alpha: -0.5, beta: 1 },
    { m: rank, n: 264, k: 67, gap: 8, transposeA: true, beta: 1 },
    { m: 80, n: rank, k: 133, gap: 16, transposeA: true, alpha: 0.25 },
  ]),
  { m: 1, n: 16, k: 200, transposeB: true, shift: 8 },
  { m: 1, n: 72, k: 16, beta: 0 },
  { m: 16, n: 72, k: 1, transposeA: true },
  // As large as an adapter's, and more rows than a block takes.
  { m: 2064, n: 16, k: 520, transposeB: true },
  { m: 2064, n: 48, k: 520, beta: 1 },
  { m: 2064, n: 520, k: 16, transposeB: true, alpha: 2, beta: 1 },
  { m: 2064, n: 520, k: 48, beta: 1 },
  { m: 48, n: 520, k: 2064, transposeA: true },
  { m: 520, n: 16, k: 2064, transposeA: true, alpha: 2, beta: 1 },
];

/** In bf16: what adapters of low rank train with. */
export function thinProductCases(): ConformanceCase[] {
  return thinSettings.flatMap((setting) =>
    setting.k <= 64 && setting.transposeA !== true
      ? [matmulCase(setting, "bf16", "bf16")]
      : [matmulCase(setting, "bf16", "bf16"), matmulCase(setting, "bf16", "f32")],
  );
}

export function matmulCases(): ConformanceCase[] {
  return [
    ...floatPairs.flatMap(([dtype, result]) => settings.map((setting) => matmulCase(setting, dtype, result))),
    ...thinProductCases(),
  ];
}
