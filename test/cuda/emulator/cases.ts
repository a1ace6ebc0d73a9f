/** The conformance cases of an operator that the emulator can run: of matrix products, those that kernels of ours do. */
import type { OpName } from "../../../src/device/index.ts";
import type { ConformanceCase } from "../../conformance/case.ts";
import { casesOf } from "../../conformance/cases/index.ts";
import { thinBackwardCases } from "../../conformance/cases/adapter.ts";
import { thinProductCases } from "../../conformance/cases/matmul.ts";

export function emulatedCases(op: OpName): readonly ConformanceCase[] {
  if (op === "matmul") return thinProductCases();
  return op === "lowRankBackward" ? thinBackwardCases() : casesOf(op);
}
