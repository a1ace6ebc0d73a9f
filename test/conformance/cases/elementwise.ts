/** Cases of the elementwise operators and sums: empty, single, odd and long arrays, misaligned starts, results over operands. */
import type { Dtype, FloatDtype } from "../../../src/base/index.ts";
import { close, conformanceCase, exact, integers, numbers, operand } from "../case.ts";
import type { ConformanceCase } from "../case.ts";
import { floatPairs, floats, lengths } from "./common.ts";

const fillDtypes: readonly Dtype[] = ["f32", "bf16", "f16", "f64", "i32", "i64", "u8"];

function fillCases(): ConformanceCase[] {
  return fillDtypes.flatMap((dtype) =>
    [0, 1, 1003].map((numElements) =>
      conformanceCase("fill", `${dtype} ${numElements}`, () => ({
        y: operand(dtype, numElements, { shift: 1 }),
        numElements,
        value: dtype.startsWith("f") || dtype === "bf16" ? -1.3 : 7,
      })),
    ),
  );
}

/** Values where a cast can go wrong: signed zeros, infinities, NaN, ties, subnormals, the ends of the ranges. */
const castTraps: readonly number[] = [
  0,
  -0,
  Infinity,
  -Infinity,
  Number.NaN,
  1 + 2 ** -8,
  1 + 3 * 2 ** -8,
  -1 - 2 ** -8,
  1 + 2 ** -11,
  1 + 2 ** -24,
  // Just above a tie: rounding to float32 first would lose what decides.
  1 + 2 ** -8 + 2 ** -40,
  1 + 2 ** -11 + 2 ** -40,
  2 ** -126,
  -(2 ** -130),
  2 ** -133,
  2 ** -149,
  2 ** -14,
  2 ** -24,
  2 ** -25,
  65504,
  65519.99,
  65520,
  3.3895e38,
  3.3961e38,
  3.4028e38,
  1e300,
  1e-300,
];

function convertCases(): ConformanceCase[] {
  const dtypes: readonly FloatDtype[] = ["f32", "bf16", "f16", "f64"];
  return dtypes.flatMap((from) =>
    dtypes.flatMap((to) => [
      ...[0, 1003].map((numElements) =>
        conformanceCase("convert", `${from} to ${to}, ${numElements}`, (data) => ({
          x: operand(from, numElements, { values: data.normal(numElements, { std: 20 }), shift: 1 }),
          y: operand(to, numElements),
          numElements,
        })),
      ),
      conformanceCase("convert", `${from} to ${to}, traps`, () => ({
        x: numbers(from, castTraps),
        y: operand(to, castTraps.length),
        numElements: castTraps.length,
      })),
    ]),
  );
}

function addCases(): ConformanceCase[] {
  return floats.flatMap((dtype) =>
    lengths.flatMap((numElements) =>
      [undefined, "a", "b"].map((sameAs) =>
        conformanceCase("add", `${dtype} ${numElements}${sameAs ? `, y is ${sameAs}` : ""}`, (data) => ({
          a: operand(dtype, numElements, { values: data.normal(numElements) }),
          b: operand(dtype, numElements, { values: data.normal(numElements, { std: 3 }) }),
          y: operand(dtype, numElements, { sameAs }),
          numElements,
        })),
      ),
    ),
  );
}

function axpbyCases(): ConformanceCase[] {
  const factors = [
    [1, 1],
    [0.5, 0],
    [2, -0.75],
  ];
  return floatPairs.flatMap(([dtype, result]) =>
    lengths.flatMap((numElements) =>
      factors.map(([alpha, beta]) =>
        conformanceCase(
          "axpby",
          `${dtype} to ${result} ${numElements}, alpha ${alpha}, beta ${beta}`,
          (data) => ({
            x: operand(dtype, numElements, { values: data.normal(numElements), shift: 1 }),
            y: operand(result, numElements, {
              // With beta = 0, y holds poison that must not be read.
              ...(beta === 0 ? {} : { values: data.normal(numElements) }),
              check: close(),
            }),
            numElements,
            alpha,
            beta,
          }),
        ),
      ),
    ),
  );
}

function scaleRowsCases(): ConformanceCase[] {
  const shapes = [
    [0, 5],
    [1, 1],
    [3, 5],
    [70, 132],
    [2, 4096],
  ];
  return floats.flatMap((dtype) =>
    shapes.flatMap(([numRows, width]) =>
      [undefined, "x"].map((sameAs) =>
        conformanceCase(
          "scaleRows",
          `${dtype} (${numRows}, ${width})${sameAs ? ", in place" : ""}`,
          (data) => ({
            x: operand(dtype, numRows, { width, values: data.normal(numRows * width) }),
            rowScales: operand("f32", numRows, { values: data.normal(numRows) }),
            y: operand(dtype, numRows, { width, sameAs }),
            numRows,
            width,
          }),
        ),
      ),
    ),
  );
}

function randomNormalCases(): ConformanceCase[] {
  const streams = [
    { seed: 1, counter: 0 },
    { seed: 2 ** 40 + 12345, counter: 2 ** 32 - 3 },
    { seed: 2 ** 53 - 1, counter: 2 ** 45 + 7 },
  ];
  return floats.flatMap((dtype) =>
    streams.flatMap(({ seed, counter }) =>
      [0, 1, 6, 1003].map((numElements) =>
        conformanceCase("randomNormal", `${dtype} ${numElements}, seed ${seed}, counter ${counter}`, () => ({
          // Radii reach sqrt(-2 ln 2^-24) = 5.8, and a float32 angle errs by its own rounding.
          y: operand(dtype, numElements, { check: close({ scale: 6 * 0.5 + 0.25 }) }),
          numElements,
          seed,
          counter,
          mean: 0.25,
          std: 0.5,
        })),
      ),
    ),
  );
}

function sumCases(op: "sum" | "sumOfSquares"): ConformanceCase[] {
  return floats.flatMap((dtype) =>
    [0, 1, 1003, 300_007].map((numElements) =>
      conformanceCase(op, `${dtype} ${numElements}`, (data) => ({
        x: operand(dtype, numElements, { values: data.normal(numElements), shift: 3 }),
        accumulator: operand("f64", 1, {
          values: () => Float64Array.of(2.5),
          check: close({ length: numElements, scale: op === "sum" ? Math.sqrt(numElements) : 0 }),
        }),
        numElements,
      })),
    ),
  );
}

function columnSumCases(): ConformanceCase[] {
  const shapes = [
    [0, 5],
    [1, 1],
    [3, 5],
    [257, 130],
    [1000, 33],
    [4, 16384],
  ];
  return floatPairs.flatMap(([dtype, result]) =>
    shapes.flatMap(([numRows, width]) =>
      [0, 1].map((beta) =>
        conformanceCase(
          "columnSum",
          `${dtype} to ${result} (${numRows}, ${width}), beta ${beta}`,
          (data) => ({
            x: operand(dtype, numRows, { width, values: data.normal(numRows * width) }),
            y: operand(result, width, {
              ...(beta === 0 ? {} : { values: data.normal(width) }),
              check: close({ length: numRows }),
            }),
            numRows,
            width,
            beta,
          }),
        ),
      ),
    ),
  );
}

/** Clipping by the table's formula, for norms that are small, large, infinite or no number. */
function clipCoefficientCases(): ConformanceCase[] {
  const settings = [
    { squares: 4, gradientScale: 1, maxNorm: 1, skipAboveNorm: 0 },
    { squares: 4, gradientScale: 0.125, maxNorm: 1, skipAboveNorm: 0 },
    { squares: 1e6, gradientScale: 0.5, maxNorm: 0, skipAboveNorm: 0 },
    { squares: 1e6, gradientScale: 0.5, maxNorm: 1, skipAboveNorm: 499, isSkipped: true },
    { squares: 1e6, gradientScale: 0.5, maxNorm: 1, skipAboveNorm: 501 },
    { squares: 0, gradientScale: 1, maxNorm: 1, skipAboveNorm: 10 },
    { squares: Infinity, gradientScale: 1, maxNorm: 1, skipAboveNorm: 0, isSkipped: true },
    // Finite in float64, not in the float32 that it is stored as.
    { squares: 1e80, gradientScale: 1, maxNorm: 1, skipAboveNorm: 0, isSkipped: true },
    { squares: Number.NaN, gradientScale: 1, maxNorm: 0, skipAboveNorm: 0, isSkipped: true },
  ];
  return settings.map(({ squares, isSkipped = false, ...scalars }) =>
    conformanceCase("clipCoefficient", JSON.stringify({ squares: String(squares), ...scalars }), () => ({
      sumOfSquares: numbers("f64", [squares]),
      norm: operand("f32", 1, { check: squares < 1e76 ? close() : exact }),
      coefficient: operand("f32", 1, { check: isSkipped ? exact : close() }),
      ...scalars,
    })),
  );
}

export function elementwiseCases(): ConformanceCase[] {
  return [
    ...fillCases(),
    ...convertCases(),
    ...addCases(),
    ...axpbyCases(),
    ...scaleRowsCases(),
    ...randomNormalCases(),
    ...sumCases("sum"),
    ...sumCases("sumOfSquares"),
    ...columnSumCases(),
    ...clipCoefficientCases(),
  ];
}

function embeddingForwardCases(): ConformanceCase[] {
  const shapes = [
    { numRows: 0, width: 4, vocabSize: 3 },
    { numRows: 1, width: 1, vocabSize: 1 },
    { numRows: 5, width: 33, vocabSize: 7 },
    { numRows: 130, width: 264, vocabSize: 50 },
    { numRows: 3, width: 4096, vocabSize: 4 },
    { numRows: 40, width: 3, vocabSize: 256_000 },
  ];
  return floats.flatMap((dtype) =>
    shapes.map(({ numRows, width, vocabSize }) =>
      conformanceCase("embeddingForward", `${dtype} (${numRows} of ${vocabSize}, ${width})`, (data) => ({
        tokens: operand("i32", numRows, { values: data.integers(numRows, 0, vocabSize) }),
        weight: operand(dtype, vocabSize, { width, values: data.normal(vocabSize * width) }),
        y: operand(dtype, numRows, { width }),
        numRows,
        width,
        vocabSize,
      })),
    ),
  );
}

function embeddingBackwardCases(): ConformanceCase[] {
  const shapes = [
    { numRows: 0, width: 4, vocabSize: 3 },
    { numRows: 1, width: 1, vocabSize: 1 },
    { numRows: 40, width: 33, vocabSize: 7 },
    { numRows: 300, width: 130, vocabSize: 20 },
    { numRows: 1000, width: 8, vocabSize: 1 },
    { numRows: 100, width: 5, vocabSize: 50_000 },
  ];
  return floatPairs.flatMap(([dtype, result]) =>
    shapes.map(({ numRows, width, vocabSize }) =>
      conformanceCase(
        "embeddingBackward",
        `${dtype} to ${result} (${numRows} of ${vocabSize}, ${width})`,
        (data) => ({
          tokens: operand("i32", numRows, { values: data.integers(numRows, 0, vocabSize) }),
          dy: operand(dtype, numRows, { width, values: data.normal(numRows * width) }),
          dweight: operand(result, vocabSize, {
            width,
            values: data.normal(vocabSize * width),
            check: close({ length: 1 + numRows / vocabSize, scale: Math.sqrt(1 + numRows / vocabSize) }),
          }),
          numRows,
          width,
          vocabSize,
        }),
      ),
    ),
  );
}

/** Rows with no source, one, two and many, which lie in any order and may be named more than once. */
function sumRowsCases(): ConformanceCase[] {
  const shapes = [
    { counts: [], width: 4, numSources: 3 },
    { counts: [0], width: 3, numSources: 1 },
    { counts: [1], width: 1, numSources: 1 },
    { counts: [2, 0, 1, 1, 0], width: 33, numSources: 7 },
    { counts: Array.from({ length: 130 }, (_, row) => row % 3), width: 264, numSources: 50 },
    { counts: [1, 100, 0], width: 8, numSources: 60 },
    { counts: [1, 2], width: 12_288, numSources: 4 },
  ];
  return floats.flatMap((dtype) =>
    shapes.map(({ counts, width, numSources }) => {
      const starts = [0];
      for (const count of counts) starts.push(starts[starts.length - 1] + count);
      const numTerms = starts[counts.length];
      const most = Math.max(1, ...counts);
      return conformanceCase(
        "sumRows",
        `${dtype} (${counts.length} of ${numTerms} of ${numSources}, ${width})`,
        (data) => ({
          x: operand(dtype, numSources, { width, values: data.normal(numSources * width) }),
          starts: integers("i32", starts),
          sources: operand("i32", numTerms, { values: data.integers(numTerms, 0, numSources) }),
          y: operand(dtype, counts.length, {
            width,
            // A copy is exact.
            check: most === 1 ? exact : close({ length: most, scale: Math.sqrt(most) }),
          }),
          numRows: counts.length,
          width,
          numSources,
        }),
      );
    }),
  );
}

export function embeddingCases(): ConformanceCase[] {
  return [
    ...embeddingForwardCases(),
    ...embeddingBackwardCases(),
    ...sumRowsCases(),
    conformanceCase("embeddingForward", "f32, every row in order", (data) => ({
      tokens: integers("i32", [0, 1, 2, 3]),
      weight: operand("f32", 4, { width: 7, values: data.normal(28) }),
      y: operand("f32", 4, { width: 7, shift: 1 }),
      numRows: 4,
      width: 7,
      vocabSize: 4,
    })),
  ];
}
