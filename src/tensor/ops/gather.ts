/** Rows of a matrix by index, where the same row may be wanted more than once. */
import { invariant, ShapeError } from "../../base/index.ts";
import type { Context } from "../context.ts";
import { record } from "../tape.ts";
import type { Tensor } from "../tensor.ts";

/** Which rows to take, and the same the other way round: where each row went. */
export interface RowIndex {
  /** i32 (N): the row of the source that each row of the result is. */
  rows: Tensor;
  /** M: rows of the source. */
  numSources: number;
  /** i32 (M + 1) and i32 (N): source m is the result's rows places[starts[m]] .. places[starts[m + 1]], from the first to the last. */
  starts: Tensor;
  places: Tensor;
}

/** The index of `rows`, each below `numSources`; its tensors belong to the innermost scope. */
export function rowIndex(context: Context, rows: Int32Array, numSources: number): RowIndex {
  const starts = new Int32Array(numSources + 1);
  for (const row of rows) {
    invariant(row >= 0 && row < numSources, `row ${row} of ${numSources}`);
    starts[row + 1]++;
  }
  for (let source = 0; source < numSources; source++) starts[source + 1] += starts[source];
  const places = new Int32Array(rows.length);
  const next = starts.slice();
  for (const [place, row] of rows.entries()) places[next[row]++] = place;
  const upload = (values: Int32Array): Tensor => context.tensor(values, [values.length], "i32");
  return { rows: upload(rows), numSources, starts: upload(starts), places: upload(places) };
}

/**
 * x (M, C) -> (N, C): the rows that the index names. The gradient of a row of x is the sum over its copies, in their order, in f32 and
 * rounded once. Throws ShapeError.
 */
export function gatherRows(context: Context, x: Tensor, index: RowIndex): Tensor {
  const { rows, numSources, starts, places } = index;
  if (x.numRows !== numSources)
    throw new ShapeError("gatherRows", `expected ${numSources} rows, got ${x.numRows}`);
  const { width, dtype } = x;
  const numRows = rows.numElements;
  const y = context.empty([numRows, width], dtype);
  context.device.run("embeddingForward", {
    tokens: rows,
    weight: x,
    y,
    numRows,
    width,
    vocabSize: numSources,
  });
  record(context, [y], {
    name: "gatherRows",
    inputs: [x],
    save: [starts, places],
    backward: ([dy], [savedStarts, savedPlaces]) => {
      if (dy === undefined) return [];
      const dx = context.empty([numSources, width], dtype);
      context.device.run("sumRows", {
        x: dy,
        starts: savedStarts.get(),
        sources: savedPlaces.get(),
        y: dx,
        numRows: numSources,
        width,
        numSources: numRows,
      });
      return [dx];
    },
  });
  return y;
}
