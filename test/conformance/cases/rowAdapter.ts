/**
 * Cases of low-rank additions chosen row by row: rows that share an adapter, have another, or none, alone and in groups that cross the
 * kernels' windows; one to three parts, also of uneven width; ranks of whole pieces and others; odd and empty sizes, row strides.
 */
import { close, conformanceCase, integers, operand, type ConformanceCase } from "../case.ts";
import { floatPairs, floats } from "./common.ts";

interface Rows {
  numRows: number;
  /** Taken again and again. */
  slots: readonly number[];
  gap?: number;
}

interface Down extends Rows {
  width: number;
  rank: number;
}

interface Up extends Rows {
  /** Of each part. */
  widths: readonly number[];
  rank: number;
}

const mixed = [0, 0, 1, -1, 2, 0, 0, 0, 2, 1, 0];

const downs: readonly Down[] = [
  { numRows: 1, width: 1, rank: 1, slots: [0] },
  { numRows: 4, width: 33, rank: 3, slots: [2, -1, 0, 2] },
  { numRows: 5, width: 128, rank: 8, slots: [-1] },
  { numRows: 19, width: 257, rank: 16, slots: [1, 0, 3, 1, 2], gap: 5 },
  { numRows: 3, width: 4104, rank: 6, slots: [1, 0] },
  { numRows: 33, width: 64, rank: 7, slots: [0] },
  { numRows: 35, width: 96, rank: 17, slots: mixed, gap: 8 },
  { numRows: 70, width: 160, rank: 32, slots: [0, 0, 0, 1, 1, -1], gap: 8 },
  { numRows: 600, width: 24, rank: 5, slots: mixed },
  { numRows: 16, width: 1024, rank: 48, slots: [0, 1, 2, 3, 4, 5, 6, 7] },
  { numRows: 64, width: 4096, rank: 48, slots: [0, 1, 2, 3, 4, 5, 6, 7] },
  { numRows: 0, width: 64, rank: 4, slots: [0] },
];

const ups: readonly Up[] = [
  { numRows: 1, widths: [1], rank: 1, slots: [0] },
  { numRows: 4, widths: [17], rank: 3, slots: [2, -1, 0, 2] },
  { numRows: 5, widths: [40, 56], rank: 8, slots: [-1] },
  { numRows: 19, widths: [301], rank: 16, slots: [1, 0, 3, 1, 2], gap: 5 },
  { numRows: 6, widths: [37, 13, 50], rank: 16, slots: mixed, gap: 3 },
  { numRows: 9, widths: [300, 60, 60], rank: 32, slots: mixed },
  { numRows: 3, widths: [40, 30], rank: 100, slots: [1] },
  { numRows: 3, widths: [40, 30, 20], rank: 24, slots: [1, 0] },
  { numRows: 7, widths: [90, 33], rank: 64, slots: [0, 1, -1, 1] },
  { numRows: 2, widths: [20], rank: 256, slots: [0] },
  { numRows: 33, widths: [200, 100], rank: 8, slots: [0] },
  { numRows: 70, widths: [160, 20, 12], rank: 32, slots: [0, 0, 0, 1, 1, -1], gap: 8 },
  { numRows: 600, widths: [30], rank: 4, slots: mixed },
  { numRows: 600, widths: [17, 9], rank: 8, slots: mixed },
  { numRows: 16, widths: [1024, 512, 512], rank: 16, slots: [0, 1, 2, 3, 4, 5, 6, 7] },
  { numRows: 64, widths: [4096, 4096, 4096], rank: 16, slots: [0, 1, 2, 3, 4, 5, 6, 7] },
  { numRows: 0, widths: [64, 40], rank: 4, slots: [0] },
];

function slotsOf({ numRows, slots }: Rows): { list: number[]; numSlots: number } {
  const list = Array.from({ length: numRows }, (_, row) => slots[row % slots.length]);
  return { list, numSlots: 1 + Math.max(...slots, 0) };
}

function label({ numRows, gap = 0 }: Rows, sizes: string): string {
  return `${numRows} rows, ${sizes}${gap === 0 ? "" : `, gap ${gap}`}`;
}

function downCases(): ConformanceCase[] {
  return floats.flatMap((dtype) =>
    downs.map((down) => {
      const { numRows, width, rank, gap = 0 } = down;
      const { list, numSlots } = slotsOf(down);
      return conformanceCase(
        "adapterDown",
        `${dtype}, ${label(down, `${width} to rank ${rank}`)}`,
        (data) => ({
          x: operand(dtype, numRows, { width, stride: width + gap, values: data.normal(numRows * width) }),
          a: operand(dtype, numSlots * rank, { width, values: data.normal(numSlots * rank * width) }),
          slots: integers("i32", list),
          low: operand("f32", numRows, {
            width: rank,
            values: data.normal(numRows * rank),
            check: close({ length: width, terms: Math.sqrt(width) }),
          }),
          numRows,
          width,
          rank,
          numSlots,
          xRowStride: width + gap,
        }),
      );
    }),
  );
}

function upCases(): ConformanceCase[] {
  return floatPairs.flatMap(([dtype, result]) =>
    ups.map((up) => {
      const { numRows, widths, rank, gap = 0 } = up;
      const { list, numSlots } = slotsOf(up);
      const numParts = widths.length;
      const [first, second = 0, third = 0] = widths;
      const width = first + second + third;
      const text = `${dtype} to ${result}, ${label(up, `rank ${rank} to ${widths.join(" + ")}`)}`;
      return conformanceCase("adapterUp", text, (data) => ({
        low: operand("f32", numRows, {
          width: numParts * rank,
          values: data.normal(numRows * numParts * rank),
        }),
        b: operand(dtype, numSlots * width, { width: rank, values: data.normal(numSlots * width * rank) }),
        scales: operand("f32", numSlots, {
          width: numParts,
          values: data.uniform(numSlots * numParts, 0.5, 2),
        }),
        slots: integers("i32", list),
        y: operand(result, numRows, {
          width,
          stride: width + gap,
          values: data.normal(numRows * width),
          check: close({ length: rank }),
        }),
        numRows,
        width,
        rank,
        numParts,
        secondStart: first,
        thirdStart: first + second,
        numSlots,
        yRowStride: width + gap,
      }));
    }),
  );
}

export function rowAdapterCases(): ConformanceCase[] {
  return [...downCases(), ...upCases()];
}
