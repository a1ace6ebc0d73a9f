/** Rows put under each other. */
import { expectShape } from "../../base/index.ts";
import type { Context } from "../context.ts";
import { record } from "../tape.ts";
import type { Tensor } from "../tensor.ts";

/** K rows of (1, C) -> (K, C). Throws ShapeError. */
export function stackRows(context: Context, rows: readonly Tensor[]): Tensor {
  const { width, dtype } = rows[0];
  for (const row of rows) expectShape("stackRows", { row }, [1, width]);
  const y = context.empty([rows.length, width], dtype);
  for (const [index, row] of rows.entries())
    context.device.run("convert", { x: row, y: y.at(index * width), numElements: width });
  record(context, [y], {
    name: "stackRows",
    inputs: rows,
    save: [],
    backward: ([dy]) =>
      rows.map((row, index) => {
        if (dy === undefined || row.variable === undefined) return undefined;
        const drow = context.empty([1, width], dtype);
        context.device.run("convert", { x: dy.at(index * width), y: drow, numElements: width });
        return drow;
      }),
  });
  return y;
}
