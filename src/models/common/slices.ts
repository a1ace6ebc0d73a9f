/** How families say where a checkpoint's tensors lie in our parameters. */
import type { WeightSlice } from "./family.ts";

/** A tensor that is all of a parameter of `numRows` rows. */
export function wholeSlice(name: string, parameter: string, numRows: number): WeightSlice {
  return { name, parameter, rowStart: 0, numRows };
}

/** Tensors that are one parameter's rows, in order: names with their rows. */
export function stackedSlices(
  parameter: string,
  parts: readonly (readonly [string, number])[],
): WeightSlice[] {
  let rowStart = 0;
  return parts.map(([name, numRows]) => {
    const slice = { name, parameter, rowStart, numRows };
    rowStart += numRows;
    return slice;
  });
}
