/** A weight in parts against the same weight in one piece: both products, and the gradient of the input through a layer. */
import { describe, expect, it } from "vitest";
import { ShapeError } from "../../src/base/index.ts";
import { Context, linear, StackedWeight, Tape, watch } from "../../src/tensor/index.ts";
import type { LinearWeight, Tensor } from "../../src/tensor/index.ts";
import { DataSource } from "../conformance/random.ts";
import { openOrSkip } from "../open-device.ts";

const width = 301;
const shapes = {
  // Parts of at most 64 rows are multiplied as dot products by any number of rows, larger ones by up to 64.
  narrow: [96, 33, 31],
  wide: [192, 72, 80],
};
const cases = (["f32", "bf16"] as const).flatMap((dtype) =>
  [1, 5, 70, 300].flatMap((numRows) =>
    (["narrow", "wide"] as const).map((shape) => ({ dtype, numRows, shape })),
  ),
);

/** Largest difference, relative to the largest magnitude. */
function relativeError(got: Float64Array, expected: Float64Array): number {
  expect(got.length).toBe(expected.length);
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return got.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0) / largest;
}

describe.each(["reference", "cpu", "cuda"] as const)("a stacked weight on %s", (kind) => {
  it.for(cases)(
    "gives what the whole weight gives: $shape parts, $numRows rows, $dtype",
    async (shape, test) => {
      const { dtype, numRows } = shape;
      using device = await openOrSkip(kind, test);
      const context = new Context(device);
      const data = new DataSource(`stacked ${JSON.stringify(shape)}`);
      const partRows = shapes[shape.shape];
      const numOutputs = partRows.reduce((total, rows) => total + rows, 0);
      context.scope(() => {
        const tensor = (...lengths: number[]): Tensor => {
          const count = lengths.reduce((product, length) => product * length, 1);
          return context.tensor(data.normal(count)(), lengths, dtype);
        };
        const [whole, bias, dy] = [
          tensor(numOutputs, width),
          tensor(numOutputs),
          tensor(numRows, numOutputs),
        ];
        const values = data.normal(numRows * width)();
        let start = 0;
        using stacked = new StackedWeight(partRows.map((rows) => whole.rows(start, (start += rows))));
        expect(stacked.shape).toEqual(whole.shape);
        expect([stacked.byteLength, stacked.dtype]).toEqual([whole.byteLength, dtype]);
        const pass = (weight: LinearWeight): { y: Float64Array; dx: Float64Array } => {
          using tape = new Tape();
          const x = context.tensor(values, [numRows, width], dtype);
          using variable = watch(x);
          const y = context.withTape(tape, () => linear(context, x, { weight, bias }));
          const outputs = y.toArray();
          tape.backward(context, [{ tensor: y, gradient: dy }]);
          return { y: outputs, dx: variable.gradient?.toArray() ?? new Float64Array() };
        };
        const [expected, got] = [pass(whole), pass(stacked)];
        // Sums in f32 of 301 products in another order; in bf16 one rounding of the result more or less.
        const tolerance = dtype === "f32" ? 2e-6 : 2 ** -8;
        const isSameSum =
          kind === "reference" || (kind === "cpu" && (numRows <= 64 || shape.shape === "wide"));
        if (isSameSum) expect(Buffer.from(got.y.buffer).equals(Buffer.from(expected.y.buffer))).toBe(true);
        expect(relativeError(got.y, expected.y)).toBeLessThan(tolerance);
        // The sum over outputs is one of three sums; in bf16 each is rounded.
        expect(relativeError(got.dx, expected.dx)).toBeLessThan(dtype === "f32" ? 2e-6 : 3 * 2 ** -8);
      });
      expect(device.memory().liveBytes).toBe(0);
    },
  );

  it("gives its rows run by run, and refuses parts that do not fit", async (test) => {
    using device = await openOrSkip(kind, test);
    const context = new Context(device);
    const matrix = (rows: number, columns: number, first: number): Tensor =>
      context.tensor(
        Array.from({ length: rows * columns }, (_, i) => first + i),
        [rows, columns],
        "f32",
      );
    context.scope(() => {
      using stacked = new StackedWeight([
        matrix(2, 3, 0).alias(),
        matrix(1, 3, 6).alias(),
        matrix(3, 3, 9).alias(),
      ]);
      const runs: number[][] = [];
      for (using run of stacked.runs(1, 5)) runs.push([...run.toArray()]);
      expect(runs).toEqual([
        [3, 4, 5],
        [6, 7, 8],
        [9, 10, 11, 12, 13, 14],
      ]);
      expect(() => new StackedWeight([matrix(2, 3, 0), matrix(2, 4, 0)])).toThrow(ShapeError);
    });
  });
});
