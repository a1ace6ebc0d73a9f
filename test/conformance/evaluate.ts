/** A problem solved by the reference: the expected results, and the inputs of cases that need another operator's results. */
import type { OpName } from "../../src/device/index.ts";
import { createReferenceDevice } from "../../src/device/reference/index.ts";
import { operandsOf, type AnyProblem } from "./case.ts";
import { Placement, valuesOf } from "./memory.ts";

const reference = createReferenceDevice();

/** Every tensor's values after the run, rows closed up, by name. No two tensors share memory. */
export function evaluate(op: OpName, problem: AnyProblem): Map<string, Float64Array> {
  using placement = new Placement(reference, problem, { sharing: false });
  reference.run(op, placement.arguments());
  return new Map(
    operandsOf(problem).map(([name, operand]) => [name, valuesOf(placement.contents(name), operand)]),
  );
}
