/** The conformance cases of an operator that the emulator can run: of matrix products, those that kernels of ours do. */
import type { OpName } from "../../../src/device/index.ts";
import type { ConformanceCase } from "../../conformance/case.ts";
import { casesOf } from "../../conformance/cases/index.ts";
import { thinBackwardCases } from "../../conformance/cases/adapter.ts";
import { thinProductCases } from "../../conformance/cases/matmul.ts";
import { mostFewRows } from "../../../src/device/cuda/launch/scaledProduct.ts";

export function emulatedCases(op: OpName): readonly ConformanceCase[] {
  if (op === "matmul") return thinProductCases();
  if (op === "matmulScaled") return casesOf(op).filter(hasFewRows);
  return op === "lowRankBackward" ? thinBackwardCases() : casesOf(op);
}

function hasFewRows(conformanceCase: ConformanceCase): boolean {
  const { m } = conformanceCase.build();
  return typeof m === "number" && m <= mostFewRows;
}
