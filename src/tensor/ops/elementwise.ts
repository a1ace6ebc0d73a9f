/** Sums, casts and other plain pointwise operators. */
import { expectShape } from "../../base/index.ts";
import type { Dtype } from "../../base/index.ts";
import type { Context } from "../context.ts";
import { record } from "../tape.ts";
import type { Tensor } from "../tensor.ts";

/** a + b, of one shape and dtype. Throws ShapeError. */
export function add(context: Context, a: Tensor, b: Tensor): Tensor {
  expectShape("add", { b }, a.shape);
  const y = context.empty(a.shape, a.dtype);
  context.device.run("add", { a, b, y, numElements: y.numElements });
  record(context, [y], { name: "add", inputs: [a, b], save: [], backward: ([dy]) => [dy, dy] });
  return y;
}

/** x rounded to another dtype; the gradient is rounded back. */
export function convert(context: Context, x: Tensor, dtype: Dtype): Tensor {
  const y = context.empty(x.shape, dtype);
  context.device.run("convert", { x, y, numElements: y.numElements });
  record(context, [y], {
    name: "convert",
    inputs: [x],
    save: [],
    backward: ([dy]) => [dy && convert(context, dy, x.dtype)],
  });
  return y;
}

/** The sum of all values, f64 (1), outside the tape. */
export function sum(context: Context, x: Tensor): Tensor {
  const accumulator = context.full([1], "f64", 0);
  context.device.run("sum", { x, accumulator, numElements: x.numElements });
  return accumulator;
}
