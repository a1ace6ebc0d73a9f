/** Cases of what adapters need beside matrix products. */
import { close, conformanceCase, operand, type ConformanceCase } from "../case.ts";
import { floatPairs, floats, lengths } from "./common.ts";

function pointwiseCases(): ConformanceCase[] {
  return floats.flatMap((dtype) =>
    lengths.flatMap((numElements) => [
      ...[0, 0.1, 0.9].flatMap((probability) =>
        [undefined, "x"].map((sameAs) =>
          conformanceCase(
            "dropout",
            `${dtype} ${numElements}, p ${probability}${sameAs ? " in place" : ""}`,
            (data) => ({
              x: operand(dtype, numElements, { values: data.normal(numElements) }),
              y: operand(dtype, numElements, { sameAs, check: close() }),
              numElements,
              seed: 2 ** 40 + 7,
              counter: 2 ** 33 - 2,
              probability,
            }),
          ),
        ),
      ),
      ...[undefined, "a", "b"].map((sameAs) =>
        conformanceCase("multiply", `${dtype} ${numElements}${sameAs ? `, y is ${sameAs}` : ""}`, (data) => ({
          a: operand(dtype, numElements, { values: data.normal(numElements) }),
          b: operand(dtype, numElements, { values: data.normal(numElements, { std: 3 }) }),
          y: operand(dtype, numElements, { sameAs }),
          numElements,
        })),
      ),
    ]),
  );
}

const shapes = [
  { numRows: 0, width: 5, stride: 5 },
  { numRows: 1, width: 1, stride: 1 },
  { numRows: 3, width: 5, stride: 9 },
  { numRows: 257, width: 130, stride: 130 },
  { numRows: 70, width: 4096, stride: 4100 },
];

function columnCases(): ConformanceCase[] {
  return floatPairs.flatMap(([dtype, result]) =>
    shapes.flatMap(({ numRows, width, stride }) =>
      [false, true].flatMap((isDivided) => {
        const label = `${dtype} to ${result} (${numRows}, ${width}) of ${stride}${isDivided ? ", divided" : ""}`;
        return [
          conformanceCase("scaleColumns", label, (data) => ({
            x: operand(dtype, numRows, { width, stride, values: data.normal(numRows * width) }),
            scale: operand(dtype, width, { values: data.normal(width) }),
            ...(isDivided
              ? { divisor: operand("f32", width, { values: data.normal(width, { mean: 9 }) }) }
              : {}),
            y: operand(result, numRows, { width, stride: stride + 2, check: close() }),
            numRows,
            width,
            xRowStride: stride,
            yRowStride: stride + 2,
          })),
          ...[0, 1].map((beta) =>
            conformanceCase("columnDot", `${label}, beta ${beta}`, (data) => ({
              a: operand(dtype, numRows, { width, stride, values: data.normal(numRows * width) }),
              b: operand(dtype, numRows, { width, stride: width + 1, values: data.normal(numRows * width) }),
              ...(isDivided
                ? { divisor: operand("f32", width, { values: data.normal(width, { mean: 9 }) }) }
                : {}),
              y: operand(result, width, {
                ...(beta === 0 ? {} : { values: data.normal(width) }),
                check: close({ length: numRows, scale: 1 + Math.sqrt(numRows) }),
              }),
              numRows,
              width,
              aRowStride: stride,
              bRowStride: width + 1,
              beta,
            })),
          ),
        ];
      }),
    ),
  );
}

function rowNormCases(): ConformanceCase[] {
  return floatPairs.flatMap(([dtype, result]) =>
    shapes.map(({ numRows, width }) =>
      conformanceCase("rowNorms", `${dtype} to ${result} (${numRows}, ${width})`, (data) => ({
        x: operand(dtype, numRows, { width, values: data.normal(numRows * width) }),
        norms: operand(result, numRows, { check: close({ length: width }) }),
        numRows,
        width,
      })),
    ),
  );
}

function promptCases(): ConformanceCase[] {
  const tables = [
    { numRows: 0, width: 4, vocabSize: 3, promptLength: 2 },
    { numRows: 1, width: 1, vocabSize: 1, promptLength: 1 },
    { numRows: 40, width: 33, vocabSize: 7, promptLength: 5 },
    { numRows: 300, width: 2500, vocabSize: 20, promptLength: 20 },
  ];
  return tables.flatMap(({ numRows, width, vocabSize, promptLength }) => {
    const label = `(${numRows}, ${width}) of ${vocabSize} and ${promptLength}`;
    return [
      ...floats.map((dtype) =>
        conformanceCase("promptEmbeddingForward", `${dtype} ${label}`, (data) => ({
          tokens: operand("i32", numRows, { values: data.integers(numRows, 0, vocabSize + promptLength) }),
          weight: operand(dtype, vocabSize, { width, values: data.normal(vocabSize * width) }),
          prompt: operand(dtype, promptLength, { width, values: data.normal(promptLength * width) }),
          y: operand(dtype, numRows, { width }),
          numRows,
          width,
          vocabSize,
          promptLength,
        })),
      ),
      ...floatPairs.map(([dtype, result]) =>
        conformanceCase("promptEmbeddingBackward", `${dtype} to ${result} ${label}`, (data) => ({
          tokens: operand("i32", numRows, { values: data.integers(numRows, 0, vocabSize + promptLength) }),
          dy: operand(dtype, numRows, { width, values: data.normal(numRows * width) }),
          dprompt: operand(result, promptLength, {
            width,
            values: data.normal(promptLength * width),
            check: close({ length: 1 + numRows / vocabSize, scale: Math.sqrt(1 + numRows / vocabSize) }),
          }),
          numRows,
          width,
          vocabSize,
          promptLength,
        })),
      ),
    ];
  });
}

interface LowRankShape {
  numRows: number;
  width: number;
  rank: number;
  gap?: number;
  alpha?: number;
  beta?: number;
}

function lowRankCase(shape: LowRankShape, dtype: "f32" | "bf16", result: "f32" | "bf16"): ConformanceCase {
  const { numRows, width, rank, gap = 0, alpha = 1, beta = 0 } = shape;
  const label = `${dtype} to ${result} (${numRows}, ${width}) of rank ${rank}, gap ${gap}, alpha ${alpha}, beta ${beta}`;
  return conformanceCase("lowRankBackward", label, (data) => ({
    dy: operand(dtype, numRows, { width, stride: width + gap, values: data.normal(numRows * width) }),
    low: operand(dtype, numRows, { width: rank, stride: rank + gap, values: data.normal(numRows * rank) }),
    b: operand(dtype, width, { width: rank, values: data.normal(width * rank) }),
    dlow: operand(dtype, numRows, {
      width: rank,
      stride: rank + 2 * gap,
      check: close({ length: width, scale: Math.abs(alpha) * Math.sqrt(width) }),
    }),
    db: operand(result, width, {
      width: rank,
      ...(beta === 0 ? {} : { values: data.normal(width * rank) }),
      check: close({ length: numRows, scale: 1 + Math.abs(alpha) * Math.sqrt(numRows) }),
    }),
    numRows,
    width,
    rank,
    dyRowStride: width + gap,
    lowRowStride: rank + gap,
    dlowRowStride: rank + 2 * gap,
    alpha,
    beta,
  }));
}

/** In bf16: what kernels for products of low rank take. */
export function thinBackwardCases(): ConformanceCase[] {
  const shapes: readonly LowRankShape[] = [
    ...[8, 16, 24, 32, 48].flatMap((rank) => [
      { numRows: 37, width: 600, rank, alpha: 2, beta: 1 },
      { numRows: 130, width: 72, rank, gap: 8 },
    ]),
    { numRows: 1, width: 520, rank: 16 },
    // As large as an adapter's.
    { numRows: 2064, width: 520, rank: 16, alpha: 2, beta: 1 },
    { numRows: 2064, width: 1040, rank: 32, gap: 8 },
  ];
  return shapes.flatMap((shape) => [lowRankCase(shape, "bf16", "bf16"), lowRankCase(shape, "bf16", "f32")]);
}

function lowRankCases(): ConformanceCase[] {
  const shapes: readonly LowRankShape[] = [
    { numRows: 1, width: 1, rank: 1 },
    { numRows: 5, width: 7, rank: 3, gap: 2, alpha: 0.5, beta: 1 },
    { numRows: 130, width: 257, rank: 4 },
    { numRows: 40, width: 64, rank: 16, alpha: 2, beta: 0.25 },
  ];
  return [
    ...shapes.flatMap((shape) => [lowRankCase(shape, "f32", "f32"), lowRankCase(shape, "bf16", "f32")]),
    ...thinBackwardCases(),
  ];
}

export function adapterCases(): ConformanceCase[] {
  return [...lowRankCases(), ...pointwiseCases(), ...columnCases(), ...rowNormCases(), ...promptCases()];
}
