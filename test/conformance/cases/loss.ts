/** Cases of the cross-entropy: ignored rows, with and without the gradient, large logits, the 8B model's vocabulary. */
import { close, conformanceCase, operand, type ConformanceCase } from "../case.ts";
import { floats } from "./common.ts";

const shapes = [
  { numRows: 0, vocabSize: 9, std: 1 },
  { numRows: 1, vocabSize: 1, std: 1 },
  { numRows: 7, vocabSize: 5, std: 1 },
  { numRows: 33, vocabSize: 1003, std: 3 },
  { numRows: 5, vocabSize: 300, std: 40 },
  { numRows: 2, vocabSize: 256_000, std: 2 },
];

export function lossCases(): ConformanceCase[] {
  return floats.flatMap((dtype) =>
    shapes.flatMap(({ numRows, vocabSize, std }) =>
      [0, 1].flatMap((writeGradient) =>
        [
          { ignoreIndex: -1, isScaled: false },
          { ignoreIndex: -100, isScaled: true },
        ].map(({ ignoreIndex, isScaled }) =>
          conformanceCase(
            "crossEntropy",
            `${dtype} (${numRows}, ${vocabSize}) std ${std}, ignore ${ignoreIndex}, gradient ${writeGradient}`,
            (data) => {
              const drawn = data.integers(numRows, 0, vocabSize);
              return {
                logits: operand(dtype, numRows, {
                  width: vocabSize,
                  values: data.normal(numRows * vocabSize, { std }),
                  // Errors of a probability are relative to it times the size of the exponent.
                  ...(writeGradient === 1 ? { check: close({ length: std ** 2 }) } : {}),
                }),
                ...(isScaled ? { rowScales: operand("f32", numRows, { values: data.normal(numRows) }) } : {}),
                targets: operand("i32", numRows, {
                  values: () => drawn().map((target, row) => (row % 3 === 1 ? ignoreIndex : target)),
                }),
                losses: operand("f32", numRows, { check: close({ length: vocabSize, scale: 1 }) }),
                numRows,
                vocabSize,
                ignoreIndex,
                writeGradient,
                gradientScale: 0.25,
              };
            },
          ),
        ),
      ),
    ),
  );
}
