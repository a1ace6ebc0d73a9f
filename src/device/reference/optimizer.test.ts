/** Reference: what AdamW's fixtures do not show: skipped steps, masters, stochastic rounding; and writing to the cache. */
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

describe("kvCacheWrite", () => {
  it("puts rows into their slots, and skips negative ones", () => {
    const kCache = tensor("f32", [0, 0, 0, 0, 0, 0]);
    const vCache = tensor("f32", [9, 9, 9, 9, 9, 9]);
    device.run("kvCacheWrite", {
      k: tensor("f32", [1, 2, -1, 3, 4, -1, 5, 6]),
      v: tensor("f32", [7, 8, 5, 6, 3, 4]),
      slots: tensor("i32", [2, -1, 0]),
      kCache,
      vCache,
      numRows: 3,
      numSlots: 3,
      numKvHeads: 1,
      headDim: 2,
      kRowStride: 3,
      vRowStride: 2,
    });
    expect(readTensor(kCache)).toEqual([5, 6, 0, 0, 1, 2]);
    expect(readTensor(vCache)).toEqual([3, 4, 9, 9, 7, 8]);
  });

  it("makes codes of heads in a cache of u8, with scales by head and slot, and kvCacheCopy copies both", () => {
    const cache = {
      kCache: tensor(
        "u8",
        Array.from({ length: 12 }, () => 0),
      ),
      vCache: tensor(
        "u8",
        Array.from({ length: 12 }, () => 1),
      ),
      kScales: tensor("f32", [9, 9, 9, 9, 9, 9]),
      vScales: tensor("f32", [8, 8, 8, 8, 8, 8]),
      numSlots: 3,
      numKvHeads: 2,
      headDim: 2,
    };
    device.run("kvCacheWrite", {
      ...cache,
      // By 7 / 448 = 2^-6: 448 and -64; zeros: no scale.
      k: tensor("f32", [7, -1, 0, 0]),
      v: tensor("f32", [0.5, 3.5, 1e-37, -448]),
      slots: tensor("i32", [1]),
      numRows: 1,
      kRowStride: 4,
      vRowStride: 4,
    });
    expect(readTensor(cache.kCache)).toEqual([0, 0, 0, 0, 0x7e, 0xe8, 0, 0, 0, 0, 0, 0]);
    expect(readTensor(cache.kScales)).toEqual([9, 2 ** -6, 9, 9, 0, 9]);
    expect(readTensor(cache.vCache)).toEqual([1, 1, 1, 1, 0x68, 0x7e, 0, 0xfe, 1, 1, 1, 1]);
    expect(readTensor(cache.vScales)).toEqual([8, 2 ** -7, 8, 8, 1, 8]);
    device.run("kvCacheCopy", {
      ...cache,
      sources: tensor("i32", [1, 1]),
      slots: tensor("i32", [0, 2]),
      numRows: 2,
    });
    expect(readTensor(cache.kCache)).toEqual([0, 1, 2].flatMap(() => [0x7e, 0xe8, 0, 0]));
    expect(readTensor(cache.kScales)).toEqual([2 ** -6, 2 ** -6, 2 ** -6, 0, 0, 0]);
    expect(readTensor(cache.vScales)).toEqual([2 ** -7, 2 ** -7, 2 ** -7, 1, 1, 1]);
  });
});
