/**
 * The reference in float64 against PyTorch in float64: problems and results from test/fixtures/generate/operators.py. The tolerance is
 * that of two float64 computations; where a tensor is float32 by the table, that of its rounding.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { placeTensor, readTensor } from "../../../test/host-tensors.ts";
import type { Dtype } from "../../base/index.ts";
import type { OpArguments, TensorArgument } from "../contract.ts";
import { opNames, type OpName } from "../ops.ts";
import { tableDtypes } from "../dtypes.ts";
import { createReferenceDevice } from "./index.ts";

interface StoredTensor {
  dtype: Dtype;
  values: number[];
}
interface Problem {
  op: OpName;
  label: string;
  arguments: Record<string, StoredTensor | number>;
  expected: Record<string, number[]>;
}

const file = new URL("../../../test/fixtures/golden/operators.json", import.meta.url);
const problems: readonly Problem[] = JSON.parse(readFileSync(file, "utf8"));
const device = createReferenceDevice();

/** The dtype of a result that the problem does not give: float32 where the table says so, else float64. */
function resultDtype(op: OpName, tensor: string): Dtype {
  return tableDtypes(op, tensor).length === 1 ? tableDtypes(op, tensor)[0] : "f64";
}

interface Result {
  name: string;
  values: readonly number[];
  dtype: Dtype;
}

function solve({ op, arguments: given, expected }: Problem): Result[] {
  const args: Record<string, TensorArgument | number> = {};
  for (const [name, value] of Object.entries(given)) {
    args[name] = typeof value === "number" ? value : placeTensor(device, value.dtype, value.values);
  }
  const results = Object.entries(expected).map(([name, { length }]) => {
    const fresh = Float64Array.from({ length }, () => Number.NaN);
    const tensor = args[name] ?? placeTensor(device, resultDtype(op, name), fresh);
    if (typeof tensor === "number") throw new TypeError(`a number for the result ${name}`);
    args[name] = tensor;
    return { name, tensor };
  });
  // The fixture holds the arguments of the operator that it names.
  device.run(op, args as unknown as OpArguments<OpName>);
  return results.map(({ name, tensor }) => ({ name, values: readTensor(tensor), dtype: tensor.dtype }));
}

/** What a problem's float32 inputs leave undecided, relative to its results. */
function toleranceOf({ op, arguments: given }: Problem, dtype: Dtype): number {
  const isRounded = Object.entries(given).some(
    ([name, value]) =>
      typeof value === "object" && value.dtype === "f32" && name !== "cosSin" && name !== "coefficient",
  );
  if (dtype === "f32") return 2 ** -23;
  return isRounded || op.startsWith("attentionBackward") ? 1e-6 : 1e-13;
}

describe("the reference against PyTorch", () => {
  it.for(problems.map((problem) => [`${problem.op} ${problem.label}`, problem] as const))(
    "%s",
    ([, problem]) => {
      for (const { name, values, dtype } of solve(problem)) {
        const wanted = problem.expected[name];
        expect(values.length).toBe(wanted.length);
        const size = Math.max(...wanted.map(Math.abs));
        const worst = Math.max(...wanted.map((value, i) => Math.abs(values[i] - value)));
        expect(worst, `${name} of size ${size}`).toBeLessThanOrEqual(toleranceOf(problem, dtype) * size);
      }
    },
  );

  // Copies, draws and what one line of JavaScript says: the conformance suite and unit tests of their own hold these.
  it("covers every operator with a formula of its own", () => {
    const covered = new Set(problems.map(({ op }) => op));
    const rest = opNames.filter((name) => !covered.has(name));
    expect(rest).toEqual([
      "fill",
      "convert",
      "add",
      "axpby",
      "scaleRows",
      "randomNormal",
      "sum",
      "columnSum",
      "sumRows",
      "quantise",
      "quantiseRows",
      "dequantiseRows",
      "matmulScaled",
      "kvCacheWrite",
      "kvCacheCopy",
      "rotaryCacheWrite",
      "rotaryAttentionPaged",
      "activationCodes",
      "dropout",
      "applyPenalties",
      "sample",
      "gatherTokens",
      "maskLogits",
      "sumOfSquares",
    ]);
  });
});
