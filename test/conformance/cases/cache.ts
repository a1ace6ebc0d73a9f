/**
 * Cases of rotary positions, of the paged cache and of attention over it, apart and in one: part and whole of a head turned, skipped slots, decoding, prefill in chunks and
 * both in one batch, blocks in any order, tables with unused entries; caches of floats and of E4M3 codes.
 */
import { e4m3CodeOf } from "../../../src/device/reference/float8.ts";
import {
  close,
  conformanceCase,
  integers,
  operand,
  type Check,
  type ConformanceCase,
  type Operand,
} from "../case.ts";
import type { DataSource, Values } from "../random.ts";
import { floats, intermediateOf, type TensorDtype } from "./common.ts";

const rotarySettings = [
  { numRows: 0, numHeads: 2, headDim: 8, rotaryDim: 8, gap: 0 },
  { numRows: 1, numHeads: 1, headDim: 2, rotaryDim: 2, gap: 0 },
  { numRows: 5, numHeads: 3, headDim: 6, rotaryDim: 4, gap: 1 },
  { numRows: 33, numHeads: 4, headDim: 64, rotaryDim: 64, gap: 0 },
  { numRows: 70, numHeads: 3, headDim: 128, rotaryDim: 64, gap: 256 },
];
const maxPositions = 90;

function rotaryCases(): ConformanceCase[] {
  return floats.flatMap((dtype) =>
    rotarySettings.flatMap(({ numRows, numHeads, headDim, rotaryDim, gap }) =>
      [0, 1].flatMap((inverse) =>
        [undefined, "x"].map((sameAs) =>
          conformanceCase(
            "rotary",
            `${dtype} ${numRows} rows H ${numHeads} D ${headDim} turned ${rotaryDim} inverse ${inverse} gap ${gap}${sameAs ? " in place" : ""}`,
            (data) => {
              const width = numHeads * headDim;
              const layout = { width, stride: width + gap };
              const angles = data.uniform(maxPositions * (rotaryDim / 2), -3, 3);
              return {
                x: operand(dtype, numRows, { ...layout, values: data.normal(numRows * width) }),
                positions: operand("i32", numRows, { values: data.integers(numRows, 0, maxPositions) }),
                cosSin: operand("f32", maxPositions, {
                  width: rotaryDim,
                  values: () => cosSinOf(angles(), rotaryDim),
                }),
                y: operand(dtype, numRows, { ...layout, sameAs, check: close() }),
                numRows,
                numHeads,
                headDim,
                rotaryDim,
                xRowStride: width + gap,
                yRowStride: width + gap,
                inverse,
              };
            },
          ),
        ),
      ),
    ),
  );
}

function cosSinOf(angles: Float64Array, rotaryDim: number): Float64Array {
  const half = rotaryDim / 2;
  return Float64Array.from({ length: 2 * angles.length }, (_, index) => {
    const position = Math.floor(index / rotaryDim);
    const column = index % rotaryDim;
    const angle = angles[position * half + (column % half)];
    return column < half ? Math.cos(angle) : Math.sin(angle);
  });
}

/** What a cache holds: values as they are, or E4M3 codes with scales. */
export type CacheForm = "floats" | "codes";
const cacheForms: readonly CacheForm[] = ["floats", "codes"];

interface CacheOperands {
  kCache: Operand;
  vCache: Operand;
  kScales?: Operand;
  vScales?: Operand;
  numSlots: number;
}

/** `keys`: how what becomes of the keys is judged, where it is not exact. */
function cacheOperands(
  data: DataSource,
  { dtype, form }: { dtype: TensorDtype; form: CacheForm },
  sizes: { numSlots: number; numKvHeads: number; headDim: number; keys?: { isTurned: boolean } },
): CacheOperands {
  const { numSlots, numKvHeads, headDim, keys = { isTurned: false } } = sizes;
  const width = numKvHeads * headDim;
  const values = (): Values => data.normal(numSlots * width);
  if (form === "floats") {
    const half = (check?: Check): Operand =>
      operand(dtype, numSlots, { width, values: values(), ...(check === undefined ? {} : { check }) });
    return { kCache: half(keys.isTurned ? close() : undefined), vCache: half(), numSlots };
  }
  const codes = (check?: Check): Operand => {
    const spread = values();
    return operand("u8", numSlots, {
      width,
      values: () => spread().map((value) => e4m3CodeOf(100 * value)),
      ...(check === undefined ? {} : { check }),
    });
  };
  const scales = (check?: Check): Operand =>
    operand("f32", numKvHeads, {
      width: numSlots,
      values: data.uniform(numKvHeads * numSlots, 0.005, 0.015),
      ...(check === undefined ? {} : { check }),
    });
  // A turned key may be rounded to the other side, and a largest value with all codes of its head.
  const turnedScales = close(dtype === "bf16" ? { intermediate: "bf16" } : {});
  return {
    kCache: codes(keys.isTurned ? nearlyAllCodes : undefined),
    vCache: codes(),
    kScales: scales(keys.isTurned ? turnedScales : undefined),
    vScales: scales(),
    numSlots,
  };
}

/** Of codes, one in fifty may be the next one: where what was rounded lay in the middle between both but for its last bits. */
const nearlyAllCodes: Check = {
  kind: "judge",
  judge: (actual, expected) => {
    const place = (code: number): number => (code & 0x80 ? -(code & 0x7f) : code);
    const apart = actual.map((code, i) => Math.abs(place(code) - place(expected[i])));
    const far = apart.findIndex((steps) => steps > 1);
    if (far !== -1) return `code ${far} is ${actual[far]}, expected ${expected[far]} or one beside it`;
    const numApart = apart.reduce((count, steps) => count + steps, 0);
    if (numApart <= 1 + actual.length / 50) return undefined;
    return `${numApart} of ${actual.length} codes are not those expected`;
  },
};

const formLabel = (form: CacheForm): string => (form === "codes" ? " as codes" : "");

const writeSettings = [
  { numRows: 0, numKvHeads: 2, headDim: 8, gap: 0 },
  { numRows: 1, numKvHeads: 1, headDim: 5, gap: 0 },
  { numRows: 20, numKvHeads: 3, headDim: 20, gap: 7 },
  { numRows: 33, numKvHeads: 2, headDim: 128, gap: 512 },
];
const numSlots = 64;

function kvCacheWriteCases(form: CacheForm): ConformanceCase[] {
  return floats.flatMap((dtype) =>
    writeSettings.map(({ numRows, numKvHeads, headDim, gap }) =>
      conformanceCase(
        "kvCacheWrite",
        `${dtype} ${numRows} rows G ${numKvHeads} D ${headDim} gap ${gap}${formLabel(form)}`,
        (data) => {
          const width = numKvHeads * headDim;
          const stride = width + gap;
          const slots = data.distinct(numRows, numSlots);
          const row = { width, stride };
          // A head of zeros, and one too small for a scale.
          const spread = data.normal(numRows * width);
          const keys = (): Float64Array =>
            spread().map((value, i) => {
              const head = Math.floor(i / headDim);
              return head % 7 === 3 ? 0 : head % 7 === 5 ? value * 1e-37 : value;
            });
          return {
            k: operand(dtype, numRows, { ...row, values: keys }),
            v: operand(dtype, numRows, { ...row, values: data.normal(numRows * width) }),
            slots: operand("i32", numRows, {
              values: () => slots().map((slot, i) => (i % 4 === 2 ? -1 : slot)),
            }),
            ...cacheOperands(data, { dtype, form }, { numSlots, numKvHeads, headDim }),
            numRows,
            numKvHeads,
            headDim,
            kRowStride: stride,
            vRowStride: stride,
          };
        },
      ),
    ),
  );
}

const copySettings = [
  { numRows: 0, numKvHeads: 2, headDim: 8 },
  { numRows: 3, numKvHeads: 1, headDim: 5 },
  { numRows: 20, numKvHeads: 3, headDim: 20 },
  { numRows: 30, numKvHeads: 2, headDim: 128 },
];

function kvCacheCopyCases(form: CacheForm): ConformanceCase[] {
  return floats.flatMap((dtype) =>
    copySettings.map(({ numRows, numKvHeads, headDim }) =>
      conformanceCase(
        "kvCacheCopy",
        `${dtype} ${numRows} rows G ${numKvHeads} D ${headDim}${formLabel(form)}`,
        (data) => {
          const slots = data.distinct(2 * numRows, numSlots);
          return {
            sources: operand("i32", numRows, { values: () => slots().slice(0, numRows) }),
            slots: operand("i32", numRows, { values: () => slots().slice(numRows) }),
            ...cacheOperands(data, { dtype, form }, { numSlots, numKvHeads, headDim }),
            numRows,
            numKvHeads,
            headDim,
          };
        },
      ),
    ),
  );
}

const rotaryWriteSettings = [
  { numRows: 0, numHeads: 2, numKvHeads: 2, headDim: 8, rotaryDim: 8, gap: 0 },
  { numRows: 1, numHeads: 1, numKvHeads: 1, headDim: 2, rotaryDim: 2, gap: 0 },
  { numRows: 7, numHeads: 3, numKvHeads: 1, headDim: 6, rotaryDim: 4, gap: 1 },
  { numRows: 5, numHeads: 2, numKvHeads: 2, headDim: 24, rotaryDim: 8, gap: 0 },
  { numRows: 17, numHeads: 4, numKvHeads: 2, headDim: 64, rotaryDim: 64, gap: 0 },
  { numRows: 6, numHeads: 3, numKvHeads: 1, headDim: 128, rotaryDim: 64, gap: 128 },
  { numRows: 33, numHeads: 32, numKvHeads: 32, headDim: 128, rotaryDim: 64, gap: 0 },
  { numRows: 3, numHeads: 8, numKvHeads: 2, headDim: 128, rotaryDim: 128, gap: 0 },
];

/** As in a fused projection, where a row of q, k or v begins a whole row of all three after the last. */
function rotaryCacheWriteCases(form: CacheForm): ConformanceCase[] {
  return floats.flatMap((dtype) =>
    rotaryWriteSettings.map(({ numRows, numHeads, numKvHeads, headDim, rotaryDim, gap }) =>
      conformanceCase(
        "rotaryCacheWrite",
        `${dtype} ${numRows} rows H ${numHeads} G ${numKvHeads} D ${headDim} turned ${rotaryDim} gap ${gap}${formLabel(form)}`,
        (data) => {
          const width = numHeads * headDim;
          const kvWidth = numKvHeads * headDim;
          const stride = width + 2 * kvWidth + gap;
          const slots = data.distinct(numRows, numSlots);
          const angles = data.uniform(maxPositions * (rotaryDim / 2), -3, 3);
          const kvRows = { width: kvWidth, stride };
          return {
            q: operand(dtype, numRows, {
              width,
              stride,
              values: data.normal(numRows * width),
              check: close(),
            }),
            k: operand(dtype, numRows, { ...kvRows, values: data.normal(numRows * kvWidth) }),
            v: operand(dtype, numRows, { ...kvRows, values: data.normal(numRows * kvWidth) }),
            positions: operand("i32", numRows, { values: data.integers(numRows, 0, maxPositions) }),
            cosSin: operand("f32", maxPositions, {
              width: rotaryDim,
              values: () => cosSinOf(angles(), rotaryDim),
            }),
            slots: operand("i32", numRows, {
              values: () => slots().map((slot, i) => (i % 4 === 2 ? -1 : slot)),
            }),
            ...cacheOperands(
              data,
              { dtype, form },
              { numSlots, numKvHeads, headDim, keys: { isTurned: true } },
            ),
            numRows,
            numHeads,
            numKvHeads,
            headDim,
            rotaryDim,
            qRowStride: stride,
            kRowStride: stride,
            vRowStride: stride,
          };
        },
      ),
    ),
  );
}

export interface PagedSetting {
  /** Query rows and context tokens of each sequence. */
  sequences: readonly (readonly [number, number])[];
  blockSize: number;
  numHeads: number;
  numKvHeads: number;
  headDim: number;
  gap?: number;
}

const pagedSettings: readonly PagedSetting[] = [
  { sequences: [], blockSize: 16, numHeads: 2, numKvHeads: 1, headDim: 32 },
  { sequences: [[1, 1]], blockSize: 16, numHeads: 1, numKvHeads: 1, headDim: 8 },
  {
    sequences: [
      [1, 17],
      [1, 1],
      [1, 33],
      [1, 32],
    ],
    blockSize: 16,
    numHeads: 4,
    numKvHeads: 2,
    headDim: 64,
    gap: 256,
  },
  {
    sequences: [
      [1, 300],
      [1, 257],
    ],
    blockSize: 16,
    numHeads: 2,
    numKvHeads: 2,
    headDim: 128,
  },
  {
    sequences: [
      [5, 5],
      [7, 20],
      [0, 0],
      [1, 40],
    ],
    blockSize: 8,
    numHeads: 6,
    numKvHeads: 2,
    headDim: 32,
  },
  {
    sequences: [
      [65, 130],
      [1, 130],
      [70, 70],
    ],
    blockSize: 32,
    numHeads: 2,
    numKvHeads: 1,
    headDim: 128,
  },
  {
    sequences: [
      [3, 9],
      [1, 4],
    ],
    blockSize: 1,
    numHeads: 2,
    numKvHeads: 1,
    headDim: 20,
  },
  {
    sequences: [
      [1, 90],
      [2, 7],
    ],
    blockSize: 16,
    numHeads: 8,
    numKvHeads: 1,
    headDim: 192,
  },
];

export function attentionPagedCase(
  setting: PagedSetting,
  dtype: TensorDtype,
  form: CacheForm = "floats",
): ConformanceCase {
  const { sequences, blockSize, numHeads, numKvHeads, headDim, gap = 0 } = setting;
  const label = `${dtype} [${sequences.join("] [")}] block ${blockSize} H ${numHeads} G ${numKvHeads} D ${headDim} gap ${gap}${formLabel(form)}`;
  return conformanceCase("attentionPaged", label, (data) => {
    const queryLengths = sequences.map(([queryLength]) => queryLength);
    const contextLengths = sequences.map(([, contextLength]) => contextLength);
    const queryStarts = [0];
    for (const length of queryLengths) queryStarts.push(queryStarts[queryStarts.length - 1] + length);
    const numRows = queryStarts[sequences.length];
    const blocksOf = contextLengths.map((length) => Math.ceil(length / blockSize));
    const maxBlocks = Math.max(1, ...blocksOf) + 1;
    const numBlocks = blocksOf.reduce((total, blocks) => total + blocks, 0) + 3;
    const order = data.distinct(numBlocks, numBlocks);
    const width = numHeads * headDim;
    const longest = Math.max(1, ...contextLengths);
    return {
      q: operand(dtype, numRows, { width, stride: width + gap, values: data.normal(numRows * width) }),
      ...cacheOperands(data, { dtype, form }, { numSlots: numBlocks * blockSize, numKvHeads, headDim }),
      blockTables: operand("i32", sequences.length, {
        width: maxBlocks,
        values: () => tablesOf(blocksOf, maxBlocks, order()),
      }),
      contextLengths: integers("i32", contextLengths),
      queryStarts: integers("i32", queryStarts),
      o: operand(dtype, numRows, {
        width,
        stride: width + (gap % 8),
        check: close({ length: headDim + longest, intermediate: intermediateOf(dtype) }),
      }),
      numSequences: sequences.length,
      maxQueryLength: Math.max(0, ...queryLengths),
      numHeads,
      numKvHeads,
      headDim,
      blockSize,
      maxBlocksPerSequence: maxBlocks,
      qRowStride: width + gap,
      oRowStride: width + (gap % 8),
      scale: 1 / Math.sqrt(headDim),
    };
  });
}

interface RotaryPagedSetting extends Omit<PagedSetting, "sequences"> {
  /** Context tokens of each sequence. */
  contexts: readonly number[];
  rotaryDim: number;
}

/** Blocks of one and of several heads, one and several splits of a context, one and several chunks of a block table. */
const rotaryPagedSettings: readonly RotaryPagedSetting[] = [
  { contexts: [], blockSize: 16, numHeads: 2, numKvHeads: 1, headDim: 32, rotaryDim: 16 },
  { contexts: [1], blockSize: 16, numHeads: 1, numKvHeads: 1, headDim: 8, rotaryDim: 8 },
  {
    contexts: [17, 1, 33, 32],
    blockSize: 16,
    numHeads: 4,
    numKvHeads: 2,
    headDim: 64,
    rotaryDim: 64,
    gap: 256,
  },
  { contexts: [300], blockSize: 16, numHeads: 1, numKvHeads: 1, headDim: 64, rotaryDim: 32 },
  { contexts: [256, 7], blockSize: 16, numHeads: 2, numKvHeads: 1, headDim: 72, rotaryDim: 48 },
  { contexts: [40, 90, 5], blockSize: 8, numHeads: 10, numKvHeads: 2, headDim: 32, rotaryDim: 16 },
  { contexts: [130, 65, 64], blockSize: 32, numHeads: 6, numKvHeads: 6, headDim: 16, rotaryDim: 16 },
  { contexts: [20, 18], blockSize: 16, numHeads: 8, numKvHeads: 1, headDim: 192, rotaryDim: 96 },
  { contexts: [9, 4], blockSize: 1, numHeads: 2, numKvHeads: 1, headDim: 20, rotaryDim: 12, gap: 1 },
  {
    contexts: [300, 129, ...Array.from({ length: 32 }, (_, i) => 1 + (i % 5))],
    blockSize: 1,
    numHeads: 1,
    numKvHeads: 1,
    headDim: 16,
    rotaryDim: 16,
  },
];

export function rotaryAttentionPagedCase(
  setting: RotaryPagedSetting,
  dtype: TensorDtype,
  form: CacheForm = "floats",
): ConformanceCase {
  const { contexts, blockSize, numHeads, numKvHeads, headDim, rotaryDim, gap = 0 } = setting;
  const label = `${dtype} ${contexts.length} of ${Math.max(0, ...contexts)} block ${blockSize} H ${numHeads} G ${numKvHeads} D ${headDim} turned ${rotaryDim} gap ${gap}${formLabel(form)}`;
  return conformanceCase("rotaryAttentionPaged", label, (data) => {
    const numSequences = contexts.length;
    const blocksOf = contexts.map((length) => Math.ceil(length / blockSize));
    const maxBlocks = Math.max(1, ...blocksOf) + 1;
    const numBlocks = blocksOf.reduce((total, blocks) => total + blocks, 0) + 3;
    const order = data.distinct(numBlocks, numBlocks);
    const tables = () => tablesOf(blocksOf, maxBlocks, order());
    const width = numHeads * headDim;
    const kvWidth = numKvHeads * headDim;
    const stride = width + 2 * kvWidth + gap;
    const angles = data.uniform(maxPositions * (rotaryDim / 2), -3, 3);
    const queries = data.normal(numSequences * width);
    const rows = () => ({ width: kvWidth, stride, values: data.normal(numSequences * kvWidth) });
    return {
      q: operand(dtype, numSequences, { width, stride, values: queries, check: spent(queries, dtype) }),
      k: operand(dtype, numSequences, rows()),
      v: operand(dtype, numSequences, rows()),
      positions: operand("i32", numSequences, { values: data.integers(numSequences, 0, maxPositions) }),
      cosSin: operand("f32", maxPositions, { width: rotaryDim, values: () => cosSinOf(angles(), rotaryDim) }),
      slots: operand("i32", numSequences, {
        values: () =>
          Float64Array.from(contexts, (context, sequence) => {
            const block = tables()[sequence * maxBlocks + Math.floor((context - 1) / blockSize)];
            return sequence % 3 === 2 ? -1 : block * blockSize + ((context - 1) % blockSize);
          }),
      }),
      ...cacheOperands(
        data,
        { dtype, form },
        { numSlots: numBlocks * blockSize, numKvHeads, headDim, keys: { isTurned: true } },
      ),
      blockTables: operand("i32", numSequences, { width: maxBlocks, values: tables }),
      contextLengths: integers("i32", contexts),
      queryStarts: integers("i32", [...contexts.keys(), numSequences]),
      o: operand(dtype, numSequences, {
        width,
        stride: width + (gap % 8),
        check: close({ length: headDim + Math.max(1, ...contexts), intermediate: intermediateOf(dtype) }),
      }),
      numSequences,
      numHeads,
      numKvHeads,
      headDim,
      rotaryDim,
      blockSize,
      maxBlocksPerSequence: maxBlocks,
      qRowStride: stride,
      kRowStride: stride,
      vRowStride: stride,
      oRowStride: width + (gap % 8),
      scale: 1 / Math.sqrt(headDim),
    };
  });
}

/** Each value as it was, or as the reference turned it. */
function spent(given: Values, dtype: TensorDtype): Check {
  const allowance = dtype === "f32" ? 2 ** -20 : 2 ** -6;
  const isNear = (a: number, b: number): boolean => Math.abs(a - b) <= allowance * Math.max(1, Math.abs(b));
  return {
    kind: "judge",
    judge: (actual, expected) => {
      const before = given();
      const index = actual.findIndex((value, i) => !isNear(value, before[i]) && !isNear(value, expected[i]));
      if (index === -1) return undefined;
      return `value ${index} is ${actual[index]}, expected ${before[index]} or ${expected[index]}`;
    },
  };
}

/** Blocks dealt out in the given order; -1 in the entries that no token needs. */
function tablesOf(blocksOf: readonly number[], maxBlocks: number, order: Float64Array): Float64Array {
  const tables = new Float64Array(blocksOf.length * maxBlocks).fill(-1);
  let next = 0;
  for (const [sequence, numBlocks] of blocksOf.entries()) {
    for (let i = 0; i < numBlocks; i++) tables[sequence * maxBlocks + i] = order[next++];
  }
  return tables;
}

export function cacheCases(): ConformanceCase[] {
  return [
    ...rotaryCases(),
    ...cacheForms.flatMap((form) => [
      ...kvCacheWriteCases(form),
      ...kvCacheCopyCases(form),
      ...rotaryCacheWriteCases(form),
      ...floats.flatMap((dtype) => pagedSettings.map((setting) => attentionPagedCase(setting, dtype, form))),
      ...floats.flatMap((dtype) =>
        rotaryPagedSettings.map((setting) => rotaryAttentionPagedCase(setting, dtype, form)),
      ),
    ]),
  ];
}
