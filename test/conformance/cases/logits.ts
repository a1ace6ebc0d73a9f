/** Cases of biases, masks, gathered tokens and log-probabilities of given tokens. */
import { fromBf16Bits, toBf16Bits } from "../../../src/base/index.ts";
import { close, conformanceCase, numbers, operand, type ConformanceCase } from "../case.ts";
import type { Values } from "../random.ts";

/** Rounded to bf16, as a model's logits are: then many are equal. */
function withTies(logits: Values): Values {
  return () => logits().map((value) => fromBf16Bits(toBf16Bits(value)));
}

function gatherCases(): ConformanceCase[] {
  return [0, 1, 7, 300].map((numRows) =>
    conformanceCase("gatherTokens", `${numRows} rows`, (data) => ({
      sources: operand("i32", numRows, { values: data.integers(numRows, -1, 5) }),
      drawn: numbers("i32", [9, 8, 7, 6, 255_999]),
      known: operand("i32", numRows, { values: data.integers(numRows, 0, 100) }),
      tokens: operand("i32", numRows),
      numRows,
      numDrawn: 5,
    })),
  );
}

function biasCases(): ConformanceCase[] {
  const shapes = [
    { numRows: 0, vocabSize: 5, maxEntries: 2 },
    { numRows: 3, vocabSize: 7, maxEntries: 7 },
    { numRows: 4, vocabSize: 32_000, maxEntries: 300 },
    { numRows: 2, vocabSize: 256_000, maxEntries: 1 },
  ];
  return shapes.map(({ numRows, vocabSize, maxEntries }) =>
    conformanceCase("biasLogits", `${numRows} rows of ${vocabSize}, ${maxEntries} entries`, (data) => {
      const perRow = Array.from({ length: numRows }, () => data.distinct(maxEntries, vocabSize));
      return {
        logits: operand("f32", numRows, {
          width: vocabSize,
          values: data.normal(numRows * vocabSize),
          check: close(),
        }),
        tokens: operand("i32", numRows, {
          width: maxEntries,
          values: () => Float64Array.from(perRow.flatMap((row) => Array.from(row()))),
        }),
        biases: operand("f32", numRows, {
          width: maxEntries,
          values: data.uniform(numRows * maxEntries, -100, 100),
        }),
        // The first row has none.
        entryLengths: numbers(
          "i32",
          perRow.map((_, row) => (row === 0 ? 0 : maxEntries)),
        ),
        numRows,
        vocabSize,
        maxEntries,
      };
    }),
  );
}

function maskCases(): ConformanceCase[] {
  const shapes = [
    { numRows: 2, vocabSize: 5, rows: [] },
    { numRows: 3, vocabSize: 7, rows: [2] },
    { numRows: 4, vocabSize: 1003, rows: [3, 0] },
    { numRows: 2, vocabSize: 256_000, rows: [1] },
  ];
  return shapes.map(({ numRows, vocabSize, rows }) =>
    conformanceCase("maskLogits", `rows ${rows.join(", ") || "none"} of ${vocabSize}`, (data) => {
      const words = data.integers(rows.length * Math.ceil(vocabSize / 32), -(2 ** 31), 2 ** 31);
      return {
        logits: operand("f32", numRows, { width: vocabSize, values: data.normal(numRows * vocabSize) }),
        rows: numbers("i32", rows),
        allowed: operand("i32", rows.length, {
          width: Math.ceil(vocabSize / 32),
          // All bits come up, the sign included, and whole words of ones.
          values: () => words().map((word, i) => (i % 5 === 4 ? -1 : word)),
        }),
        numMasks: rows.length,
        vocabSize,
      };
    }),
  );
}

function logprobCases(): ConformanceCase[] {
  const shapes = [
    { numRows: 0, vocabSize: 5, numTop: 2 },
    { numRows: 5, vocabSize: 7, numTop: 9 },
    { numRows: 8, vocabSize: 1003, numTop: 0 },
    { numRows: 8, vocabSize: 1003, numTop: 20 },
    { numRows: 3, vocabSize: 32_000, numTop: 128 },
    { numRows: 2, vocabSize: 256_000, numTop: 5 },
  ];
  return shapes.map(({ numRows, vocabSize, numTop }) =>
    conformanceCase("tokenLogprobs", `${numRows} rows of ${vocabSize}, top ${numTop}`, (data) => ({
      logits: operand("f32", numRows, {
        width: vocabSize,
        values: withTies(data.normal(numRows * vocabSize, { std: 3 })),
      }),
      tokens: operand("i32", numRows, { values: data.integers(numRows, 0, vocabSize) }),
      logprobs: operand("f32", numRows, { check: close({ length: vocabSize, scale: 1 }) }),
      ranks: operand("i32", numRows),
      ...(numTop === 0
        ? {}
        : {
            topTokens: operand("i32", numRows, { width: numTop }),
            topLogprobs: operand("f32", numRows, {
              width: numTop,
              check: close({ length: vocabSize, scale: 1 }),
            }),
          }),
      numRows,
      vocabSize,
      numTop,
    })),
  );
}

export function logitsCases(): ConformanceCase[] {
  return [...gatherCases(), ...biasCases(), ...maskCases(), ...logprobCases()];
}
