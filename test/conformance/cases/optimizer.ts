/**
 * Cases of AdamW: every combination of states, first and late steps, skipped steps, and stochastic rounding, where all but the
 * elements that float32 arithmetic leaves undecided must be bit for bit the reference's.
 */
import { epsilons, toBf16Bits } from "../../../src/base/index.ts";
import {
  close,
  conformanceCase,
  exact,
  numbers,
  operand,
  type Check,
  type ConformanceCase,
} from "../case.ts";
import type { TensorDtype } from "./common.ts";

interface States {
  param: TensorDtype;
  grad: TensorDtype;
  state: TensorDtype;
  hasMaster?: boolean;
  isStochastic?: boolean;
}

const states: readonly States[] = [
  { param: "f32", grad: "f32", state: "f32" },
  { param: "bf16", grad: "bf16", state: "f32", hasMaster: true },
  { param: "bf16", grad: "f32", state: "f32", hasMaster: true },
  { param: "bf16", grad: "bf16", state: "bf16" },
  { param: "bf16", grad: "bf16", state: "bf16", hasMaster: true, isStochastic: true },
  { param: "bf16", grad: "bf16", state: "bf16", isStochastic: true },
  { param: "bf16", grad: "f32", state: "f32", isStochastic: true },
  { param: "f32", grad: "f32", state: "bf16", isStochastic: true },
];

/**
 * The share of elements whose stochastic rounding may differ by one step: an error of a few units in the last place of float32
 * decides otherwise in a few of the 65536 random outcomes.
 */
const undecidedShare = 1e-3;

function judgeStochastic(actual: Float64Array, expected: Float64Array): string | undefined {
  // Terms that cancel leave their rounding errors, which are relative to their own size and may be many steps of the rest.
  const size = Math.sqrt(expected.reduce((sum, value) => sum + value * value, 0) / expected.length);
  let numDifferent = 0;
  for (let i = 0; i < actual.length; i++) {
    if (Object.is(actual[i], expected[i])) continue;
    numDifferent++;
    if (Math.abs(actual[i] - expected[i]) <= epsilons.f32 * size) continue;
    if (!(Math.abs(toBf16Bits(actual[i]) - toBf16Bits(expected[i])) <= 1)) {
      return `element ${i} is ${actual[i]}, expected ${expected[i]} or its neighbour`;
    }
  }
  const allowed = Math.ceil(undecidedShare * actual.length);
  return numDifferent <= allowed
    ? undefined
    : `${numDifferent} of ${actual.length} elements were rounded the other way, expected at most ${allowed}`;
}

const stochastic: Check = { kind: "judge", judge: judgeStochastic };

interface Step {
  numElements: number;
  step: number;
  coefficient: number;
  weightDecay: number;
  shift?: number;
}

const steps: readonly Step[] = [
  { numElements: 0, step: 1, coefficient: 1, weightDecay: 0.1 },
  { numElements: 1, step: 1, coefficient: 1, weightDecay: 0 },
  { numElements: 4099, step: 1, coefficient: 0.5, weightDecay: 0.1 },
  { numElements: 4099, step: 1000, coefficient: 1, weightDecay: 0.1, shift: 2 },
  { numElements: 1003, step: 5, coefficient: Number.NaN, weightDecay: 0.1 },
];

export function adamwCase(
  { param, grad, state, hasMaster = false, isStochastic = false }: States,
  { numElements, step, coefficient, weightDecay, shift = 0 }: Step,
): ConformanceCase {
  const label = `param ${param}${hasMaster ? " with master" : ""} grad ${grad} state ${state}${isStochastic ? " stochastic" : ""}, ${numElements} at step ${step}, coefficient ${coefficient}`;
  const checkOf = (dtype: TensorDtype, otherwise: Check): Check => {
    if (Number.isNaN(coefficient)) return exact;
    return isStochastic && dtype === "bf16" ? stochastic : otherwise;
  };
  return conformanceCase("adamw", label, (data) => {
    const weights = data.normal(numElements, { std: 0.05 });
    const place = { shift };
    return {
      param: operand(param, numElements, {
        ...place,
        values: weights,
        check: hasMaster && !Number.isNaN(coefficient) ? close() : checkOf(param, close()),
      }),
      master: hasMaster
        ? operand("f32", numElements, { ...place, values: weights, check: checkOf("f32", close()) })
        : undefined,
      grad: operand(grad, numElements, { ...place, values: data.normal(numElements) }),
      m: operand(state, numElements, {
        ...place,
        values: data.normal(numElements, { std: 0.1 }),
        // Always rounded to nearest.
        check: Number.isNaN(coefficient) ? exact : close(),
      }),
      // All terms are positive: nothing cancels.
      v: operand(state, numElements, {
        ...place,
        values: data.uniform(numElements, 1e-4, 0.02),
        check: checkOf(state, close({ scale: 0 })),
      }),
      coefficient: numbers("f32", [coefficient]),
      numElements,
      step,
      seed: 2 ** 35 + 11,
      counter: 2 ** 32 - 100,
      stochasticRounding: Number(isStochastic),
      learningRate: 3e-3,
      beta1: 0.9,
      beta2: 0.95,
      eps: 1e-8,
      weightDecay,
    };
  });
}

export function optimizerCases(): ConformanceCase[] {
  return states.flatMap((state) => steps.map((step) => adamwCase(state, step)));
}
