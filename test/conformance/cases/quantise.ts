/**
 * Cases of quantised weights: all formats, groups and whole rows, single and double quantisation of the scales, odd and empty sizes.
 */
import { groupFormats, isPacked, type GroupFormat } from "../../../src/device/index.ts";
import { e4m3CodeOf, e4m3ValueOf } from "../../../src/device/reference/float8.ts";
import {
  close,
  conformanceCase,
  exact,
  operand,
  type Check,
  type ConformanceCase,
  type Operand,
} from "../case.ts";
import type { DataSource } from "../random.ts";
import { floatPairs, floats } from "./common.ts";

const formats = Object.keys(groupFormats) as GroupFormat[];

interface WeightShape {
  numRows: number;
  width: number;
  groupSize: number;
}

const weightShapes: readonly WeightShape[] = [
  { numRows: 1, width: 1, groupSize: 32 },
  { numRows: 3, width: 31, groupSize: 64 },
  { numRows: 5, width: 64, groupSize: 64 },
  { numRows: 7, width: 257, groupSize: 64 },
  { numRows: 33, width: 130, groupSize: 32 },
  { numRows: 9, width: 515, groupSize: 515 },
  { numRows: 70, width: 1024, groupSize: 128 },
  { numRows: 0, width: 64, groupSize: 64 },
  { numRows: 6, width: 4096, groupSize: 64 },
];

const label = ({ numRows, width, groupSize }: WeightShape): string =>
  `(${numRows}, ${width}) by ${groupSize}`;

function rowBytesOf(format: GroupFormat, width: number): number {
  return isPacked(format) ? Math.ceil(width / 2) : width;
}

/** The f32 values of one tensor, with a group of zeros, ties and equal extremes of both signs at its start. */
function weightValues(data: DataSource, { numRows, width, groupSize }: WeightShape): () => Float64Array {
  const normal = data.normal(numRows * width, { std: 0.02 });
  return () => {
    const values = normal().map((value) => Math.fround(value));
    if (numRows > 2) values.fill(0, width, width + Math.min(width, groupSize));
    if (numRows > 3)
      for (let i = 0; i < Math.min(width, groupSize); i++) values[2 * width + i] = ((i % 33) - 16) / 16;
    return values;
  };
}

function quantiseCases(): ConformanceCase[] {
  return formats.flatMap((format) =>
    floats.flatMap((dtype) =>
      weightShapes.map((shape) =>
        conformanceCase("quantise", `${format} of ${dtype} ${label(shape)}`, (data) => {
          const { numRows, width, groupSize } = shape;
          const groups = Math.ceil(width / groupSize);
          return {
            x: operand(dtype, numRows, { width, values: weightValues(data, shape), shift: numRows % 2 }),
            codes: operand("u8", numRows, {
              width: rowBytesOf(format, width),
              check: exact,
              shift: numRows % 3,
            }),
            scales: operand("f32", numRows, { width: groups, check: exact }),
            ...shape,
            format: groupFormats[format],
          };
        }),
      ),
    ),
  );
}

interface RowShape {
  numRows: number;
  width: number;
  gap?: number;
  shift?: number;
}

const rowShapes: readonly RowShape[] = [
  { numRows: 1, width: 1 },
  { numRows: 8, width: 31 },
  { numRows: 9, width: 256, gap: 8 },
  { numRows: 7, width: 515, gap: 1, shift: 1 },
  { numRows: 8, width: 1024, shift: 3 },
  { numRows: 10, width: 8192 },
  { numRows: 7, width: 16_384, gap: 16 },
  { numRows: 3, width: 40_000 },
  { numRows: 0, width: 64 },
  { numRows: 3, width: 0 },
];

/**
 * Rows of every size, and then: zeros; every E4M3 number and every midpoint between two, of both signs, below a peak of 448, so that the
 * scale is one; a peak that nothing else comes near; NaN among numbers; an infinity; numbers near f32's smallest normal one, whose scale
 * would not be one.
 */
function rowValues(data: DataSource, { numRows, width }: RowShape): () => Float64Array {
  const normal = data.normal(numRows * width);
  return () => {
    const values = normal();
    const fill = (row: number, valueAt: (i: number) => number): void => {
      if (row < numRows) for (let i = 0; i < width; i++) values[row * width + i] = valueAt(i);
    };
    fill(1, (i) => (i % 2 === 0 ? 0 : -0));
    fill(2, (i) => (i === 0 ? 448 : e4m3Between(i)));
    fill(3, (i) => (i === width - 1 ? -1e30 : values[3 * width + i]));
    fill(4, (i) => (i % 5 === 3 ? NaN : values[4 * width + i]));
    fill(5, (i) => (i === width >> 1 ? -Infinity : values[5 * width + i]));
    fill(6, (i) => (i % 2 === 0 ? 2 ** -120 : -(2 ** -126)));
    return values;
  };
}

/** Every number and every midpoint between two in turn, of both signs. */
function e4m3Between(i: number): number {
  const step = (i >> 1) % 253;
  const [below, above] = [e4m3ValueOf(step >> 1), e4m3ValueOf((step + 1) >> 1)];
  return (i % 2 === 0 ? 1 : -1) * ((below + above) / 2);
}

function quantiseRowsCases(): ConformanceCase[] {
  return floats.flatMap((dtype) =>
    rowShapes.map((shape) => {
      const { numRows, width, gap = 0, shift = 0 } = shape;
      const options = `${gap === 0 ? "" : ` gap ${gap}`}${shift === 0 ? "" : ` shift ${shift}`}`;
      return conformanceCase("quantiseRows", `${dtype} (${numRows}, ${width})${options}`, (data) => ({
        x: operand(dtype, numRows, { width, stride: width + gap, values: rowValues(data, shape), shift }),
        codes: operand("u8", numRows, { width, check: exact, shift }),
        scales: operand("f32", numRows, { width: 1, check: exact }),
        numRows,
        width,
        xRowStride: width + gap,
      }));
    }),
  );
}

interface QuantisedOperands {
  codes: Operand;
  scales: Operand | undefined;
  scaleCodes: Operand | undefined;
  scaleTable: Operand | undefined;
  scaleScales: Operand | undefined;
  groupSize: number;
  format: number;
  scaleOffset: number;
}

/** Any bytes are codes; so a weight needs no quantising. `isDouble`: the scales are quantised too. */
function quantisedWeight(
  data: DataSource,
  { numRows, width, groupSize }: WeightShape,
  { format, isDouble, shift = 0 }: { format: GroupFormat; isDouble: boolean; shift?: number },
): QuantisedOperands {
  const numGroups = numRows * Math.ceil(width / groupSize);
  const numBytes = numRows * rowBytesOf(format, width);
  const codes = operand("u8", numBytes, { values: data.integers(numBytes, 0, 256), shift });
  const rest = { codes, groupSize, format: groupFormats[format] };
  if (!isDouble) {
    const scales = operand("f32", numGroups, { values: data.normal(numGroups, { std: 0.1 }), shift: 1 });
    return {
      ...rest,
      scales,
      scaleCodes: undefined,
      scaleTable: undefined,
      scaleScales: undefined,
      scaleOffset: 0,
    };
  }
  const numOuter = Math.ceil(numGroups / 256);
  return {
    ...rest,
    scales: undefined,
    scaleCodes: operand("u8", numGroups, { values: data.integers(numGroups, 0, 256) }),
    scaleTable: operand("f32", 256, { values: data.uniform(256, -1, 1) }),
    scaleScales: operand("f32", numOuter, { values: data.uniform(numOuter, 0.01, 0.02) }),
    scaleOffset: 0.03,
  };
}

function dequantiseCases(): ConformanceCase[] {
  return formats.flatMap((format) =>
    floats.flatMap((dtype) =>
      weightShapes.flatMap((shape) =>
        [false, true].map((isDouble) =>
          conformanceCase(
            "dequantise",
            `${format} to ${dtype} ${label(shape)}${isDouble ? " double" : ""}`,
            (data) => ({
              ...quantisedWeight(data, shape, { format, isDouble, shift: shape.numRows % 3 }),
              y: operand(dtype, shape.numRows, { width: shape.width, check: close({ length: 2 }) }),
              numRows: shape.numRows,
              width: shape.width,
            }),
          ),
        ),
      ),
    ),
  );
}

interface Product extends WeightShape {
  m: number;
  isDouble?: boolean;
  hasBias?: boolean;
  shift?: number;
}

const products: readonly Product[] = [
  { m: 1, numRows: 1, width: 1, groupSize: 32 },
  { m: 1, numRows: 5, width: 31, groupSize: 64, hasBias: true },
  { m: 2, numRows: 6, width: 64, groupSize: 64, isDouble: true },
  { m: 3, numRows: 37, width: 257, groupSize: 64 },
  { m: 5, numRows: 19, width: 192, groupSize: 96, shift: 1 },
  { m: 4, numRows: 130, width: 320, groupSize: 320, hasBias: true },
  { m: 9, numRows: 17, width: 515, groupSize: 515 },
  { m: 33, numRows: 21, width: 224, groupSize: 32, isDouble: true, hasBias: true },
  { m: 0, numRows: 4, width: 64, groupSize: 64 },
  { m: 3, numRows: 0, width: 64, groupSize: 64 },
  { m: 1, numRows: 256, width: 4096, groupSize: 64, isDouble: true },
  { m: 8, numRows: 64, width: 4096, groupSize: 64 },
  { m: 16, numRows: 40, width: 2112, groupSize: 64, hasBias: true },
];

function productCases(): ConformanceCase[] {
  return formats.flatMap((format) =>
    floatPairs.flatMap(([dtype, result]) =>
      products.map((product) => {
        const { m, isDouble = false, hasBias = false, shift = 0, ...shape } = product;
        const { numRows: n, width: k } = shape;
        const text = `${format}, ${dtype} to ${result}, ${m} rows, ${label(shape)}`;
        const options = `${isDouble ? " double" : ""}${hasBias ? " bias" : ""}${shift === 0 ? "" : " shifted"}`;
        return conformanceCase("matmulQuantised", text + options, (data) => ({
          ...quantisedWeight(data, shape, { format, isDouble, shift }),
          x: operand(dtype, m, { width: k, values: data.normal(m * k), shift }),
          bias: hasBias ? operand(dtype, n, { values: data.normal(n) }) : undefined,
          y: operand(result, m, { width: n, check: close({ length: k }), shift }),
          m,
          n,
          k,
        }));
      }),
    ),
  );
}

/** Every code of a number in turn. */
const numberCodes = Array.from({ length: 256 }, (_, code) => code).filter((code) => (code & 0x7f) !== 0x7f);

const allNaN: Check = {
  kind: "judge",
  judge: (actual) => (actual.every(Number.isNaN) ? undefined : "expected NaN of the codes 0x7f and 0xff"),
};

function dequantiseRowsCases(): ConformanceCase[] {
  const shapes = rowShapes.flatMap((shape) => [
    { ...shape, codes: numberCodes, check: close({ length: 2 }), name: "numbers" },
    { ...shape, codes: [0x7f, 0xff], check: allNaN, name: "NaN" },
  ]);
  return floats.flatMap((dtype) =>
    shapes.map(({ numRows, width, shift = 0, codes, check, name }) =>
      conformanceCase(
        "dequantiseRows",
        `${name} to ${dtype} (${numRows}, ${width}) shift ${shift}`,
        (data) => {
          const values = (): Float64Array =>
            Float64Array.from({ length: numRows * width }, (_, i) => codes[i % codes.length]);
          return {
            codes: operand("u8", numRows, { width, values, shift }),
            scales: operand("f32", numRows, { values: data.normal(numRows, { std: 0.1 }), shift: 1 }),
            y: operand(dtype, numRows, { width, check, shift }),
            numRows,
            width,
          };
        },
      ),
    ),
  );
}

interface ScaledProduct {
  m: number;
  n: number;
  k: number;
  hasBias?: boolean;
  gap?: number;
  /** Bytes by which the codes begin past a boundary. */
  shift?: number;
  /** Of which a whole row of both is zero, with a scale of zero. */
  hasZeroRows?: boolean;
}

const scaledProducts: readonly ScaledProduct[] = [
  { m: 1, n: 1, k: 1 },
  { m: 3, n: 5, k: 7, hasBias: true },
  { m: 8, n: 33, k: 65, gap: 3, shift: 1 },
  { m: 16, n: 40, k: 515, hasBias: true, hasZeroRows: true },
  { m: 17, n: 31, k: 129, gap: 1 },
  { m: 33, n: 47, k: 70, hasBias: true, shift: 3 },
  { m: 0, n: 5, k: 64 },
  { m: 3, n: 0, k: 64 },
  // Sizes that the library takes, and our streaming kernel: 1 MiB of codes and more.
  { m: 17, n: 48, k: 64, hasBias: true },
  { m: 65, n: 80, k: 96, gap: 8, hasZeroRows: true },
  { m: 64, n: 144, k: 272 },
  { m: 130, n: 64, k: 128, hasBias: true },
  { m: 200, n: 72, k: 520 },
  { m: 1, n: 4096, k: 256 },
  { m: 8, n: 1040, k: 1024, hasBias: true, gap: 8 },
  { m: 17, n: 2739, k: 384, hasZeroRows: true },
  { m: 64, n: 272, k: 4096 },
  { m: 33, n: 250, k: 4224, hasBias: true },
  { m: 65, n: 64, k: 4096 },
  { m: 200, n: 32, k: 4096, hasBias: true },
];

/**
 * Codes of whole numbers up to 4, for which every sum is exact whatever adds it up, or of all numbers of a row of normal ones.
 */
function codesOf(
  data: DataSource,
  { numRows, width, isWhole, zeroRow }: { numRows: number; width: number; isWhole: boolean; zeroRow: number },
): () => Float64Array {
  const count = numRows * width;
  const values = isWhole ? data.integers(count, -4, 5) : data.normal(count, { std: 112 });
  return () =>
    values().map((value, i) => e4m3CodeOf(Math.floor(i / Math.max(width, 1)) === zeroRow ? 0 : value));
}

function matmulScaledCases(): ConformanceCase[] {
  return floats.flatMap((dtype) =>
    scaledProducts.flatMap((product) =>
      [true, false].map((isWhole) => {
        const { m, n, k, hasBias = false, gap = 0, shift = 0, hasZeroRows = false } = product;
        const options = `${hasBias ? " bias" : ""}${gap === 0 ? "" : ` gap ${gap}`}${shift === 0 ? "" : ` shift ${shift}`}${hasZeroRows ? " zero rows" : ""}`;
        const label = `${isWhole ? "whole numbers" : "numbers"} to ${dtype} (${m}, ${n}, ${k})${options}`;
        return conformanceCase("matmulScaled", label, (data) => {
          const [zeroA, zeroB] = hasZeroRows ? [m >> 1, n - 1] : [-1, -1];
          const scalesOf = (numRows: number, zeroRow: number): Operand => {
            const scales = data.uniform(numRows, 0.5 / 448, 2 / 448);
            const values = (): Float64Array => scales().map((scale, row) => (row === zeroRow ? 0 : scale));
            return operand("f32", numRows, { values });
          };
          return {
            a: operand("u8", m, {
              width: k,
              values: codesOf(data, { numRows: m, width: k, isWhole, zeroRow: zeroA }),
              shift,
            }),
            aScales: scalesOf(m, zeroA),
            b: operand("u8", n, {
              width: k,
              values: codesOf(data, { numRows: n, width: k, isWhole, zeroRow: zeroB }),
              shift,
            }),
            bScales: scalesOf(n, zeroB),
            bias: hasBias ? operand(dtype, n, { values: data.normal(n) }) : undefined,
            c: operand(dtype, m, {
              width: n,
              stride: n + gap,
              check: close(isWhole ? { length: 1 } : { length: k, isCutOff: true }),
            }),
            m,
            n,
            k,
            ldc: n + gap,
          };
        });
      }),
    ),
  );
}

export function quantiseFamilyCases(): ConformanceCase[] {
  return [
    ...quantiseCases(),
    ...quantiseRowsCases(),
    ...dequantiseRowsCases(),
    ...matmulScaledCases(),
    ...dequantiseCases(),
    ...productCases(),
  ];
}
