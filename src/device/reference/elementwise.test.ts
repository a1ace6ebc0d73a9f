/** Reference: casts with a single rounding, sums, and random numbers against their definition and their distribution. */
import { describe, expect, it } from "vitest";
import { placeTensor, readTensor } from "../../../test/host-tensors.ts";
import { philox, type Dtype } from "../../base/index.ts";
import { createReferenceDevice } from "./index.ts";

const device = createReferenceDevice();

function convert(values: readonly number[], from: Dtype, to: Dtype): number[] {
  const y = placeTensor(
    device,
    to,
    values.map(() => 0),
  );
  device.run("convert", { x: placeTensor(device, from, values), y, numElements: values.length });
  return readTensor(y);
}

describe("convert", () => {
  it("rounds to the nearest bf16, ties to even", () => {
    const step = 2 ** -7;
    expect(
      convert([1 + step / 2, 1 + (3 * step) / 2, 1 + 0.49 * step, -1 - 0.51 * step], "f64", "bf16"),
    ).toEqual([1, 1 + 2 * step, 1, -1 - step]);
  });

  it("rounds once: a value just beyond a tie does not fall back through float32", () => {
    const tie = 1 + 2 ** -8;
    expect(convert([tie + 2 ** -40, tie - 2 ** -40, -tie - 2 ** -40], "f64", "bf16")).toEqual([
      1 + 2 ** -7,
      1,
      -1 - 2 ** -7,
    ]);
  });

  it("keeps infinities, NaN, signed zeros and subnormals", () => {
    const values = [Infinity, -Infinity, Number.NaN, 0, -0, 2 ** -133, 3.4e38, -1e300];
    expect(convert(values, "f64", "bf16")).toEqual([
      Infinity,
      -Infinity,
      Number.NaN,
      0,
      -0,
      2 ** -133,
      Infinity,
      -Infinity,
    ]);
    expect(convert([65504, 65519, 65520, 2 ** -24, 2 ** -26], "f64", "f16")).toEqual([
      65504,
      65504,
      Infinity,
      2 ** -24,
      0,
    ]);
  });
});

describe("sums", () => {
  it("axpby does not read y where beta is 0", () => {
    const y = placeTensor(device, "f32", [Number.NaN, 4]);
    const x = placeTensor(device, "f32", [1, 2]);
    device.run("axpby", { x, y, numElements: 2, alpha: 3, beta: 0 });
    expect(readTensor(y)).toEqual([3, 6]);
    device.run("axpby", { x, y, numElements: 2, alpha: 1, beta: -1 });
    expect(readTensor(y)).toEqual([-2, -4]);
  });

  it("sum, sumOfSquares and columnSum add to what is there", () => {
    const x = placeTensor(device, "bf16", [1, -2, 3, 4, 5, 6]);
    const total = placeTensor(device, "f64", [0.5]);
    device.run("sum", { x, accumulator: total, numElements: 6 });
    expect(readTensor(total)).toEqual([17.5]);
    device.run("sumOfSquares", { x, accumulator: total, numElements: 6 });
    expect(readTensor(total)).toEqual([17.5 + 91]);
    const y = placeTensor(device, "f32", [100, 200, 300]);
    device.run("columnSum", { x, y, numRows: 2, width: 3, beta: 0.5 });
    expect(readTensor(y)).toEqual([55, 103, 159]);
  });
});

describe("randomNormal", () => {
  const draw = (numElements: number, stream: { seed: number; counter: number }): number[] => {
    const y = placeTensor(device, "f64", new Float64Array(numElements));
    device.run("randomNormal", { y, numElements, ...stream, mean: 0, std: 1 });
    return readTensor(y);
  };

  it("is Box-Muller on the words of a Philox block", () => {
    const words = Array.from(philox(9, 2 ** 33), (word) => (word >>> 8) / 2 ** 24);
    const radii = [Math.sqrt(-2 * Math.log(1 - words[0])), Math.sqrt(-2 * Math.log(1 - words[2]))];
    const angles = [2 * Math.PI * words[1], 2 * Math.PI * words[3]];
    expect(draw(4, { seed: 9, counter: 2 ** 33 })).toEqual([
      radii[0] * Math.cos(angles[0]),
      radii[0] * Math.sin(angles[0]),
      radii[1] * Math.cos(angles[1]),
      radii[1] * Math.sin(angles[1]),
    ]);
  });

  it("gives the same numbers from any block on", () => {
    expect(draw(12, { seed: 5, counter: 100 }).slice(4)).toEqual(draw(8, { seed: 5, counter: 101 }));
  });

  it("is normal: moments within four standard errors", () => {
    const numElements = 40_000;
    const values = draw(numElements, { seed: 1, counter: 0 });
    const moment = (power: number): number =>
      values.reduce((sum, value) => sum + value ** power, 0) / numElements;
    const error = 4 / Math.sqrt(numElements);
    expect(Math.abs(moment(1))).toBeLessThan(error);
    expect(Math.abs(moment(2) - 1)).toBeLessThan(error * Math.sqrt(2));
    expect(Math.abs(moment(3))).toBeLessThan(error * Math.sqrt(15));
    expect(Math.abs(moment(4) - 3)).toBeLessThan(error * Math.sqrt(96));
  });
});
