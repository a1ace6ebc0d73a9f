/** Cases of the activations: every kind, values small and far out in the tails, gradients over operands. */
import { activationKinds } from "../../../src/device/index.ts";
import { close, conformanceCase, operand, type ConformanceCase } from "../case.ts";
import type { Values } from "../random.ts";
import { floats, lengths, rowCodeOperands } from "./common.ts";

const kinds = Object.entries(activationKinds);
/** The last are whole 16-byte accesses, without a rest. */
const plainLengths = [...lengths, 4104];

/** Mostly within a few units of zero, with a few values far out on both sides, where exponentials overflow. */
function spread(values: Values): Values {
  return () => values().map((value, i) => (i % 97 === 5 ? value * 40 : value));
}

function plainCases(): ConformanceCase[] {
  return floats.flatMap((dtype) =>
    kinds.flatMap(([name, kind]) =>
      plainLengths.flatMap((numElements) =>
        [false, true].flatMap((isInPlace) => {
          const label = `${name} ${dtype} ${numElements}${isInPlace ? " in place" : ""}`;
          return [
            conformanceCase("activationForward", label, (data) => ({
              x: operand(dtype, numElements, { values: spread(data.normal(numElements, { std: 3 })) }),
              y: operand(dtype, numElements, {
                sameAs: isInPlace ? "x" : undefined,
                check: close({ scale: 1 }),
              }),
              numElements,
              kind,
            })),
            conformanceCase("activationBackward", label, (data) => ({
              x: operand(dtype, numElements, { values: spread(data.normal(numElements, { std: 3 })) }),
              dy: operand(dtype, numElements, { values: data.normal(numElements) }),
              dx: operand(dtype, numElements, {
                sameAs: isInPlace ? "dy" : undefined,
                check: close({ scale: 2 }),
              }),
              numElements,
              kind,
            })),
          ];
        }),
      ),
    ),
  );
}

const codeShapes = [
  { numRows: 0, width: 16 },
  { numRows: 1, width: 1 },
  { numRows: 5, width: 33 },
  { numRows: 3, width: 1024 },
  { numRows: 2, width: 16_384 },
];

function codesCases(): ConformanceCase[] {
  return floats.flatMap((dtype) =>
    kinds.flatMap(([name, kind]) =>
      [0, 1].flatMap((gated) =>
        codeShapes.map(({ numRows, width }) => {
          const label = `${gated === 1 ? "gated " : ""}${name} ${dtype} (${numRows}, ${width})`;
          return conformanceCase("activationCodes", label, (data) => {
            const xWidth = width * (1 + gated);
            return {
              x: operand(dtype, numRows, {
                width: xWidth,
                values: spread(data.normal(numRows * xWidth, { std: 3 })),
              }),
              ...rowCodeOperands(dtype, numRows, width),
              numRows,
              width,
              kind,
              gated,
            };
          });
        }),
      ),
    ),
  );
}

const gatedShapes = [
  [0, 4],
  [1, 1],
  [5, 33],
  [3, 256],
];

function gatedCases(): ConformanceCase[] {
  return floats.flatMap((dtype) =>
    kinds.flatMap(([name, kind]) =>
      gatedShapes.flatMap(([numRows, width]) => {
        const label = `${name} ${dtype} (${numRows}, ${width})`;
        const numElements = numRows * width;
        return [
          conformanceCase("gatedActivationForward", label, (data) => ({
            x: operand(dtype, numRows, {
              width: 2 * width,
              values: data.normal(2 * numElements, { std: 2 }),
            }),
            y: operand(dtype, numRows, { width, check: close({ scale: 2 }) }),
            numRows,
            width,
            kind,
          })),
          ...[undefined, "x"].map((sameAs) =>
            conformanceCase("gatedActivationBackward", `${label}${sameAs ? " in place" : ""}`, (data) => ({
              x: operand(dtype, numRows, {
                width: 2 * width,
                values: data.normal(2 * numElements, { std: 2 }),
              }),
              dy: operand(dtype, numRows, { width, values: data.normal(numElements) }),
              dx: operand(dtype, numRows, { width: 2 * width, sameAs, check: close({ scale: 2 }) }),
              numRows,
              width,
              kind,
            })),
          ),
        ];
      }),
    ),
  );
}

export function activationCases(): ConformanceCase[] {
  return [...plainCases(), ...gatedCases(), ...codesCases()];
}
