/**
 * A frozen weight whose rows lie in several places: query, key and value, or gate and up, each where its file has it. A product is one for
 * each part, into its columns of the result. On the CPU its bits are those of one product where parts have more than 64 rows. The
 * gradient of the input is rounded after each part where it is in bf16.
 */
import { formatShape, invariant, numElements, ShapeError } from "../base/index.ts";
import type { Dtype, Shape } from "../base/index.ts";
import type { Context } from "./context.ts";
import type { FrozenWeight } from "./ops/linear.ts";
import type { Tensor } from "./tensor.ts";

export class StackedWeight implements FrozenWeight, Disposable {
  /** (F, C) */
  readonly shape: Shape;
  /** (F_i, C), the rows in order. */
  readonly #parts: readonly Tensor[];

  /** Owns the parts. Throws ShapeError. */
  constructor(parts: readonly Tensor[]) {
    invariant(parts.length > 0, "a stacked weight has parts");
    const [{ width, dtype }] = parts;
    for (const part of parts) {
      if (part.shape.length !== 2 || part.width !== width || part.dtype !== dtype) {
        throw new ShapeError(
          "stack",
          `expected matrices of width ${width} in ${dtype}, got ${formatShape(part.shape)} in ${part.dtype}`,
        );
      }
    }
    this.#parts = parts;
    this.shape = [parts.reduce((total, { numRows }) => total + numRows, 0), width];
  }

  get numElements(): number {
    return numElements(this.shape);
  }

  get byteLength(): number {
    return this.#parts.reduce((total, part) => total + part.byteLength, 0);
  }

  get dtype(): Dtype {
    return this.#parts[0].dtype;
  }

  /** Handles on rows `begin` .. `end`, a run of them for each part that has some, in order; the caller's to dispose. */
  *runs(begin: number, end: number): Generator<Tensor> {
    invariant(begin >= 0 && begin <= end && end <= this.shape[0], "rows of a stacked weight");
    for (const { part, start } of this.#places()) {
      const first = Math.max(begin, start);
      const last = Math.min(end, start + part.numRows);
      if (first < last) yield part.rows(first - start, last - start);
    }
  }

  multiply(context: Context, { x, y, bias }: { x: Tensor; y: Tensor; bias: Tensor | undefined }): void {
    const [widthOut, k] = this.shape;
    for (const { part, start } of this.#places()) {
      context.device.run("matmul", {
        a: x,
        b: part,
        c: y.at(start),
        bias: bias?.at(start),
        m: x.numRows,
        n: part.numRows,
        k,
        lda: k,
        ldb: k,
        ldc: widthOut,
        transposeA: 0,
        transposeB: 1,
        alpha: 1,
        beta: 0,
      });
    }
  }

  multiplyTransposed(context: Context, { dy, dx }: { dy: Tensor; dx: Tensor }): void {
    const [widthOut, n] = this.shape;
    for (const { part, start } of this.#places()) {
      context.device.run("matmul", {
        a: dy.at(start),
        b: part,
        c: dx,
        m: dy.numRows,
        n,
        k: part.numRows,
        lda: widthOut,
        ldb: n,
        ldc: n,
        transposeA: 0,
        transposeB: 0,
        alpha: 1,
        beta: start === 0 ? 0 : 1,
      });
    }
  }

  /** Each part with its first row. */
  *#places(): Generator<{ part: Tensor; start: number }> {
    let start = 0;
    for (const part of this.#parts) {
      yield { part, start };
      start += part.numRows;
    }
  }

  dispose(): void {
    for (const part of this.#parts) part.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
