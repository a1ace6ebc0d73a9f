/**
 * Frozen weights of 8 or 4 bits. Of the formats with scales for groups a few rows are multiplied straight from the codes (decoding); for many, the weight is made whole for
 * the length of one product. The gradient of the input goes through the same values: what QLoRA trains adapters beside (Dettmers et
 * al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023). In fp8 (E4M3 with a scale for each row) a product quantises the rows of its
 * input too, and multiplies codes with codes; its gradient goes through the weight's values as if the input had not been rounded.
 */
import { dtypeBytes, formatShape, invariant, numElements, ShapeError } from "../base/index.ts";
import type { Dtype, Shape } from "../base/index.ts";
import { groupFormats, isPacked } from "../device/index.ts";
import type { Device, GroupFormat, QuantisedFormat } from "../device/index.ts";
import type { Context } from "./context.ts";
import { matmulInto } from "./ops/linear.ts";
import type { FrozenWeight } from "./ops/linear.ts";
import { quantiseScales, scaleGroupSize, scaleTable } from "./quantisedScales.ts";
import { quantiseRows } from "./rowCodes.ts";
import type { RowCodes } from "./rowCodes.ts";
import { Storage, Tensor } from "./tensor.ts";

/** Elements that share a scale: rows for int8, QLoRA's 64 for the packed formats. */
const packedGroupSize = 64;
/** Rows of x up to which a product reads the codes: beyond, making the weight whole costs less than it saves. */
const mostFewRows = 16;

export interface QuantisedOptions {
  format: QuantisedFormat;
  /** A multiple of 32, or at least the width. 64 for nf4 and int4, whole rows for int8 by default; of fp8 always whole rows. */
  groupSize?: number;
  /** Whether the scales are quantised to 8 bits too. Default: for nf4, as QLoRA does. int4's signed scales cannot be. */
  isDouble?: boolean;
}

/** A weight's bytes on the device, by arithmetic. */
export function quantisedBytes(shape: Shape, options: QuantisedOptions): number {
  return partsOf(shape, options).reduce((total, { count, dtype }) => total + count * dtypeBytes(dtype), 0);
}

interface Part {
  count: number;
  dtype: Dtype;
}

function resolve([, width]: Shape, { format, groupSize, isDouble }: QuantisedOptions) {
  return {
    format,
    groupSize: groupSize ?? (isPacked(format) ? packedGroupSize : width),
    isDouble: isDouble ?? format === "nf4",
  };
}

/** Codes; then scales, or their codes and the scales of those. */
function partsOf(shape: Shape, options: QuantisedOptions): Part[] {
  const [numRows, width] = shape;
  const { format, groupSize, isDouble } = resolve(shape, options);
  const numGroups = numRows * Math.ceil(width / groupSize);
  const codes: Part = { count: numRows * (isPacked(format) ? Math.ceil(width / 2) : width), dtype: "u8" };
  if (!isDouble) return [codes, { count: numGroups, dtype: "f32" }];
  return [
    codes,
    { count: numGroups, dtype: "u8" },
    { count: Math.ceil(numGroups / scaleGroupSize), dtype: "f32" },
    { count: scaleTable().length, dtype: "f32" },
  ];
}

export class QuantisedWeight implements FrozenWeight, Disposable {
  /** (F, C) */
  readonly shape: Shape;
  readonly format: QuantisedFormat;
  readonly groupSize: number;
  readonly isDouble: boolean;
  readonly #parts: readonly Tensor[];
  #scaleOffset = 0;

  /** Uninitialised: `assign` fills it. Throws OutOfMemoryError, ShapeError. */
  constructor(device: Device, shape: Shape, options: QuantisedOptions) {
    if (shape.length !== 2) {
      throw new ShapeError("quantise", `expected a matrix (F, C), got shape ${formatShape(shape)}`);
    }
    const { format, groupSize, isDouble } = resolve(shape, options);
    invariant(format !== "fp8" || (groupSize >= shape[1] && !isDouble), "a scale for each row of fp8");
    invariant(!(isDouble && format === "int4"), "signed scales are not quantised again");
    this.shape = shape;
    this.format = format;
    this.groupSize = groupSize;
    this.isDouble = isDouble;
    using made = new DisposableStack();
    this.#parts = partsOf(shape, options).map(({ count, dtype }) => {
      const storage = new Storage(device.allocate(count * dtypeBytes(dtype)));
      return made.use(new Tensor(storage, { shape: [count], dtype }));
    });
    made.move();
  }

  get device(): Device {
    return this.#parts[0].device;
  }

  get numElements(): number {
    return numElements(this.shape);
  }

  get byteLength(): number {
    return this.#parts.reduce((total, part) => total + part.byteLength, 0);
  }

  /** The codes u8, as the operator `quantise` (of fp8 `quantiseRows`) lays them out: what a checkpoint of another tool is compared with. */
  get codes(): Tensor {
    return this.#parts[0];
  }

  /** Quantises `dense` (F, C). Throws ShapeError. */
  assign(context: Context, dense: Tensor): void {
    if (dense.shape.join() !== this.shape.join()) {
      throw new ShapeError(
        "quantise",
        `expected shape ${formatShape(this.shape)}, got ${formatShape(dense.shape)}`,
      );
    }
    const [numRows, width] = this.shape;
    const [codes, second, outer, table] = this.#parts;
    const { groupSize } = this;
    if (this.format === "fp8") {
      const shape = { numRows, width, xRowStride: width };
      context.device.run("quantiseRows", { x: dense, codes, scales: second, ...shape });
      return;
    }
    const format = groupFormats[this.format];
    context.scope(() => {
      const scales = this.isDouble ? context.empty([second.numElements], "f32") : second;
      context.device.run("quantise", { x: dense, codes, scales, numRows, width, groupSize, format });
      if (!this.isDouble) return;
      const again = quantiseScales(Float32Array.from(scales.toArray()));
      second.setBytes(again.codes);
      outer.set(again.outerScales);
      table.set(scaleTable());
      this.#scaleOffset = again.offset;
    });
  }

  /** The weight as numbers, owned by the innermost scope. */
  dequantise(context: Context, dtype: Dtype): Tensor {
    const [numRows, width] = this.shape;
    const y = context.empty(this.shape, dtype);
    if (this.format === "fp8") {
      const [codes, scales] = this.#parts;
      context.device.run("dequantiseRows", { codes, scales, y, numRows, width });
    } else context.device.run("dequantise", { ...this.#arguments(this.format), y, numRows, width });
    return y;
  }

  multiply(context: Context, { x, y, bias }: { x: Tensor; y: Tensor; bias: Tensor | undefined }): void {
    const [n, k] = this.shape;
    const { format } = this;
    if (format === "fp8") {
      context.scope(() => this.multiplyCodes(context, { codes: quantiseRows(context, x), y, bias }));
      return;
    }
    if (x.numRows <= mostFewRows) {
      context.device.run("matmulQuantised", {
        ...this.#arguments(format),
        x,
        bias,
        y,
        m: x.numRows,
        n,
        k,
      });
      return;
    }
    context.scope(() => {
      const weight = this.dequantise(context, x.dtype);
      matmulInto(context, { a: x, b: weight, c: y }, { m: x.numRows, n, k, transposeB: true, bias });
    });
  }

  multiplyTransposed(context: Context, { dy, dx }: { dy: Tensor; dx: Tensor }): void {
    const [k, n] = this.shape;
    context.scope(() => {
      const weight = this.dequantise(context, dy.dtype);
      matmulInto(context, { a: dy, b: weight, c: dx }, { m: dy.numRows, n, k });
    });
  }

  get takesCodes(): boolean {
    return this.format === "fp8";
  }

  multiplyCodes(
    context: Context,
    { codes, y, bias }: { codes: RowCodes; y: Tensor; bias: Tensor | undefined },
  ): void {
    invariant(this.takesCodes, "codes for a weight in fp8");
    const [n, k] = this.shape;
    const [b, bScales] = this.#parts;
    const [m, ldc] = [codes.codes.numRows, n];
    const rows = { a: codes.codes, aScales: codes.scales };
    context.device.run("matmulScaled", { ...rows, b, bScales, bias, c: y, m, n, k, ldc });
  }

  #arguments(format: GroupFormat) {
    const [codes, second, outer, table] = this.#parts;
    const scales = this.isDouble
      ? { scales: undefined, scaleCodes: second, scaleScales: outer, scaleTable: table }
      : { scales: second };
    return {
      codes,
      ...scales,
      scaleOffset: this.#scaleOffset,
      groupSize: this.groupSize,
      format: groupFormats[format],
    };
  }

  dispose(): void {
    for (const part of this.#parts) part.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
