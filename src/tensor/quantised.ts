/**
 * Frozen weights of 8 or 4 bits: what every format has. The gradient of the input goes through the weight's values, which are made whole for the
 * length of one product: what QLoRA trains adapters beside (Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023).
 */
import { dtypeBytes, formatShape, numElements, ShapeError } from "../base/index.ts";
import type { Dtype, Shape } from "../base/index.ts";
import type { Device, QuantisedFormat } from "../device/index.ts";
import type { Context } from "./context.ts";
import { matmulInto } from "./ops/linear.ts";
import type { FrozenWeight } from "./ops/linear.ts";
import { Storage, Tensor } from "./tensor.ts";

/** Elements of a tensor that a weight is made of. */
export interface QuantisedPart {
  count: number;
  dtype: Dtype;
}

/** Operands of y (N, F) = x (N, C) W^T + bias. */
export interface QuantisedProduct {
  x: Tensor;
  y: Tensor;
  bias: Tensor | undefined;
}

export abstract class QuantisedWeight implements FrozenWeight, Disposable {
  /** (F, C) */
  readonly shape: Shape;
  readonly format: QuantisedFormat;
  /** The codes first. */
  protected readonly parts: readonly Tensor[];

  /** Uninitialised: `assign` fills it. Throws OutOfMemoryError, ShapeError. */
  constructor(
    device: Device,
    { shape, format, parts }: { shape: Shape; format: QuantisedFormat; parts: readonly QuantisedPart[] },
  ) {
    if (shape.length !== 2) {
      throw new ShapeError("quantise", `expected a matrix (F, C), got shape ${formatShape(shape)}`);
    }
    this.shape = shape;
    this.format = format;
    using made = new DisposableStack();
    this.parts = parts.map(({ count, dtype }) => {
      const storage = new Storage(device.allocate(count * dtypeBytes(dtype)));
      return made.use(new Tensor(storage, { shape: [count], dtype }));
    });
    made.move();
  }

  get device(): Device {
    return this.codes.device;
  }

  get numElements(): number {
    return numElements(this.shape);
  }

  get byteLength(): number {
    return this.parts.reduce((total, part) => total + part.byteLength, 0);
  }

  /** The codes u8, as the format's operator lays them out: what a checkpoint of another tool is compared with. */
  get codes(): Tensor {
    return this.parts[0];
  }

  /** Quantises `dense` (F, C). Throws ShapeError. */
  assign(context: Context, dense: Tensor): void {
    if (dense.shape.join() !== this.shape.join()) {
      throw new ShapeError(
        "quantise",
        `expected shape ${formatShape(this.shape)}, got ${formatShape(dense.shape)}`,
      );
    }
    this.encode(context, dense);
  }

  /** Assigns codes and scales for `dense` (F, C). */
  protected abstract encode(context: Context, dense: Tensor): void;

  /** The values (F, C), owned by the innermost scope. */
  abstract dequantise(context: Context, dtype: Dtype): Tensor;

  abstract multiply(context: Context, operands: QuantisedProduct): void;

  multiplyTransposed(context: Context, { dy, dx }: { dy: Tensor; dx: Tensor }): void {
    const [k, n] = this.shape;
    context.scope(() => {
      const weight = this.dequantise(context, dy.dtype);
      matmulInto(context, { a: dy, b: weight, c: dx }, { m: dy.numRows, n, k });
    });
  }

  dispose(): void {
    for (const part of this.parts) part.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
