/**
 * Cases of the norms: with and without every optional tensor, results over operands, gradients added to what is there, and rows whose
 * mean is far from zero, where one-pass variances fail.
 */
import { close, conformanceCase, exact, operand, type ConformanceCase } from "../case.ts";
import type { Values } from "../random.ts";
import { floatPairs, floats, rowCodeOperands, type TensorDtype } from "./common.ts";

const eps = 1e-5;

interface ForwardSetting {
  numRows: number;
  width: number;
  gainOffset?: 0 | 1;
  hasAddend?: boolean;
  hasSum?: boolean;
  hasBias?: boolean;
  hasStatistics?: boolean;
  isInPlace?: boolean;
  hasCodes?: boolean;
  /** Mean of the rows. */
  mean?: number;
  /** Of gain and bias; as x by default. */
  weightDtype?: TensorDtype;
}

const all = { hasAddend: true, hasSum: true, hasBias: true, hasStatistics: true };
const forwardSettings: readonly ForwardSetting[] = [
  { numRows: 0, width: 8, ...all },
  { numRows: 1, width: 1, ...all },
  { numRows: 3, width: 5, ...all },
  { numRows: 3, width: 5 },
  { numRows: 3, width: 5, isInPlace: true, gainOffset: 1 },
  { numRows: 7, width: 64, hasAddend: true, gainOffset: 1 },
  { numRows: 7, width: 64, hasSum: true, hasBias: true },
  { numRows: 67, width: 130, ...all, gainOffset: 1 },
  { numRows: 67, width: 130, hasStatistics: true, isInPlace: true, hasBias: true },
  { numRows: 67, width: 136, ...all, gainOffset: 1 },
  { numRows: 7, width: 64, ...all, gainOffset: 1, weightDtype: "f32" },
  { numRows: 7, width: 64, ...all, gainOffset: 1, weightDtype: "bf16" },
  { numRows: 5, width: 768, ...all },
  { numRows: 4, width: 4096, ...all, gainOffset: 1 },
  { numRows: 2, width: 18_432, hasBias: true, hasStatistics: true },
  { numRows: 5, width: 300, hasStatistics: true, mean: 50 },
  { numRows: 0, width: 8, hasCodes: true },
  { numRows: 3, width: 5, hasCodes: true },
  { numRows: 67, width: 136, ...all, gainOffset: 1, hasCodes: true },
  { numRows: 5, width: 4096, hasAddend: true, hasSum: true, hasBias: true, gainOffset: 1, hasCodes: true },
  { numRows: 2, width: 18_432, hasCodes: true },
];

function describeForward({ numRows, width, gainOffset, ...switches }: ForwardSetting): string {
  const names = Object.entries(switches).map(([name, value]) => (value === true ? name : `${name} ${value}`));
  return [`(${numRows}, ${width})`, `offset ${gainOffset ?? 0}`, ...names].join(" ");
}

export function normForwardCase(
  op: "layerNormForward" | "rmsNormForward",
  setting: ForwardSetting,
  dtype: TensorDtype,
): ConformanceCase {
  const { numRows, width, gainOffset = 0, mean = 0, weightDtype = dtype } = setting;
  const numElements = numRows * width;
  return conformanceCase(op, `${dtype} ${describeForward(setting)}`, (data) => {
    const row = (values?: Values): object => (values === undefined ? { width } : { width, values });
    // Subtracting a large mean leaves its rounding error.
    const result = close({ length: width, scale: 1.5 + Math.abs(mean) });
    const statistic = operand("f32", numRows, { check: close({ length: width }) });
    return {
      x: operand(dtype, numRows, row(data.normal(numElements, { mean, std: 1.5 }))),
      addend: setting.hasAddend ? operand(dtype, numRows, row(data.normal(numElements))) : undefined,
      gain: operand(weightDtype, width, { values: data.normal(width, { mean: 1 - gainOffset, std: 0.3 }) }),
      sum: setting.hasSum ? operand(dtype, numRows, { width, check: exact }) : undefined,
      y: operand(dtype, numRows, { width, check: result, sameAs: setting.isInPlace ? "x" : undefined }),
      rstd: setting.hasStatistics ? statistic : undefined,
      ...(setting.hasCodes ? rowCodeOperands(dtype, numRows, width) : {}),
      numRows,
      width,
      eps,
      gainOffset,
      ...(op === "rmsNormForward"
        ? {}
        : {
            bias: setting.hasBias ? operand(weightDtype, width, { values: data.normal(width) }) : undefined,
            mean: setting.hasStatistics
              ? operand("f32", numRows, {
                  check: close({ length: width, scale: (1.5 + Math.abs(mean)) / Math.sqrt(width) }),
                })
              : undefined,
          }),
    };
  });
}

interface BackwardSetting {
  numRows: number;
  width: number;
  gainOffset?: 0 | 1;
  hasSumGradient?: boolean;
  hasWeightGradients?: boolean;
  sameAs?: "dy" | "dsum";
}

const backwardSettings: readonly BackwardSetting[] = [
  { numRows: 0, width: 8, hasWeightGradients: true },
  { numRows: 1, width: 1, hasSumGradient: true, hasWeightGradients: true },
  { numRows: 3, width: 5, hasSumGradient: true, hasWeightGradients: true },
  { numRows: 3, width: 5 },
  { numRows: 7, width: 64, hasWeightGradients: true, sameAs: "dy", gainOffset: 1 },
  { numRows: 67, width: 130, hasSumGradient: true, hasWeightGradients: true, sameAs: "dsum", gainOffset: 1 },
  { numRows: 67, width: 130, hasSumGradient: true, sameAs: "dy" },
  { numRows: 300, width: 96, hasWeightGradients: true },
  { numRows: 4, width: 4096, hasSumGradient: true, hasWeightGradients: true, gainOffset: 1 },
];

export function normBackwardCase(
  op: "layerNormBackward" | "rmsNormBackward",
  setting: BackwardSetting,
  [dtype, weightDtype]: readonly [TensorDtype, TensorDtype],
): ConformanceCase {
  const { numRows, width, gainOffset = 0, hasSumGradient = false, hasWeightGradients = false } = setting;
  const numElements = numRows * width;
  const label = `${dtype} to ${weightDtype} (${numRows}, ${width}) offset ${gainOffset}${hasSumGradient ? " dsum" : ""}${hasWeightGradients ? " dgain" : ""}${setting.sameAs ? ` dx is ${setting.sameAs}` : ""}`;
  return conformanceCase(op, label, (data) => {
    const weightGradient = (): ReturnType<typeof operand> =>
      operand(weightDtype, width, { values: data.normal(width), check: close({ length: numRows }) });
    return {
      dy: operand(dtype, numRows, { width, values: data.normal(numElements) }),
      x: operand(dtype, numRows, { width, values: data.normal(numElements, { mean: 0.3 }) }),
      gain: operand(dtype, width, { values: data.normal(width, { mean: 1 - gainOffset, std: 0.3 }) }),
      rstd: operand("f32", numRows, { values: data.uniform(numRows, 0.5, 1.5) }),
      dsum: hasSumGradient ? operand(dtype, numRows, { width, values: data.normal(numElements) }) : undefined,
      dx: operand(dtype, numRows, {
        width,
        sameAs: setting.sameAs,
        check: close({ length: width, scale: 1.5 }),
      }),
      dgain: hasWeightGradients ? weightGradient() : undefined,
      numRows,
      width,
      gainOffset,
      ...(op === "rmsNormBackward"
        ? {}
        : {
            mean: operand("f32", numRows, { values: data.normal(numRows, { std: 0.2 }) }),
            dbias: hasWeightGradients ? weightGradient() : undefined,
          }),
    };
  });
}

export function normCases(): ConformanceCase[] {
  const forward = floats.flatMap((dtype) =>
    forwardSettings.flatMap((setting) => [
      normForwardCase("layerNormForward", setting, dtype),
      normForwardCase("rmsNormForward", setting, dtype),
    ]),
  );
  const backward = floatPairs.flatMap((dtypes) =>
    backwardSettings.flatMap((setting) => [
      normBackwardCase("layerNormBackward", setting, dtypes),
      normBackwardCase("rmsNormBackward", setting, dtypes),
    ]),
  );
  return [...forward, ...backward];
}
