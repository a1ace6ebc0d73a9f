/** Reference: what AdamW's fixtures do not show: skipped steps, masters, stochastic rounding. */
import { describe, expect, it } from "vitest";
import { placeTensor, readTensor } from "../../../test/host-tensors.ts";
import { philox } from "../../base/index.ts";
import type { TensorArgument } from "../contract.ts";
import { createReferenceDevice } from "./index.ts";
import { stochasticBf16 } from "./optimizer.ts";

const device = createReferenceDevice();
const tensor = placeTensor.bind(undefined, device);

describe("stochastic rounding", () => {
  it("goes up with the probability of the remainder", () => {
    const step = 2 ** -7;
    const value = 1 + 0.25 * step;
    const numUp = Array.from({ length: 65536 }, (_, random) => stochasticBf16(value, random)).filter(
      (rounded) => rounded === 1 + step,
    ).length;
    expect(numUp).toBe(65536 / 4);
  });

  it("leaves what bf16 holds, infinities and NaN", () => {
    for (const value of [1.5, -0.0078125, 0, Infinity, -Infinity, Number.NaN]) {
      expect(stochasticBf16(value, 65535)).toBe(value);
    }
    expect(stochasticBf16(-1 - 2 ** -9, 65535)).toBe(-1 - 2 ** -7);
  });
});

interface States {
  param: TensorArgument;
  master?: TensorArgument;
  m: TensorArgument;
  v: TensorArgument;
}

function step({ param, master, m, v }: States, { coefficient = 1, stochasticRounding = 0 } = {}): void {
  device.run("adamw", {
    param,
    master,
    grad: tensor("f32", [1, -1]),
    m,
    v,
    coefficient: tensor("f32", [coefficient]),
    numElements: 2,
    step: 1,
    seed: 7,
    counter: 40,
    stochasticRounding,
    learningRate: 2 ** -10,
    beta1: 0,
    beta2: 0,
    eps: 0,
    weightDecay: 0,
  });
}

describe("adamw", () => {
  it("changes nothing when the coefficient is no number", () => {
    const states = { param: tensor("f32", [1, 2]), m: tensor("f32", [3, 4]), v: tensor("f32", [5, 6]) };
    step(states, { coefficient: Number.NaN });
    expect([states.param, states.m, states.v].map(readTensor)).toEqual([
      [1, 2],
      [3, 4],
      [5, 6],
    ]);
  });

  it("keeps the master's small steps, and gives the parameter the rounded master", () => {
    const states = {
      param: tensor("bf16", [1, 1]),
      master: tensor("f32", [1, 1]),
      m: tensor("f32", [0, 0]),
      v: tensor("f32", [0, 0]),
    };
    step(states);
    expect(readTensor(states.master)).toEqual([1 - 2 ** -10, 1 + 2 ** -10]);
    expect(readTensor(states.param)).toEqual([1, 1]);
  });

  it("rounds a bf16 parameter by the low 16 bits of word 0 of block counter + i", () => {
    const states = { param: tensor("bf16", [1, 1]), m: tensor("f32", [0, 0]), v: tensor("f32", [0, 0]) };
    step(states, { stochasticRounding: 1 });
    const expected = [1 - 2 ** -10, 1 + 2 ** -10].map((value, i) => {
      const [below, above] = value < 1 ? [1 - 2 ** -8, 1] : [1, 1 + 2 ** -7];
      const share = (value - below) / (above - below);
      return (philox(7, 40 + i)[0] & 0xffff) / 65536 >= 1 - share ? above : below;
    });
    expect(readTensor(states.param)).toEqual(expected);
  });
});
