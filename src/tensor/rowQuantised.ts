/**
 * Weights in fp8: E4M3 with a scale for each row. A product quantises the rows of its input too, and multiplies codes with codes; its gradient
 * goes through the weight's values as if the input had not been rounded.
 */
import type { Dtype, Shape } from "../base/index.ts";
import type { Device } from "../device/index.ts";
import type { Context } from "./context.ts";
import { QuantisedWeight } from "./quantised.ts";
import type { QuantisedPart, QuantisedProduct } from "./quantised.ts";
import { quantiseRows } from "./rowCodes.ts";
import type { RowCodes } from "./rowCodes.ts";
import type { Tensor } from "./tensor.ts";

/** Codes and scales. */
export function rowParts([numRows, width]: Shape): QuantisedPart[] {
  return [
    { count: numRows * width, dtype: "u8" },
    { count: numRows, dtype: "f32" },
  ];
}

export class RowQuantisedWeight extends QuantisedWeight {
  /** Uninitialised: `assign` fills it. Throws OutOfMemoryError, ShapeError. */
  constructor(device: Device, shape: Shape) {
    super(device, { shape, format: "fp8", parts: rowParts(shape) });
  }

  protected encode(context: Context, dense: Tensor): void {
    const [numRows, width] = this.shape;
    const [codes, scales] = this.parts;
    context.device.run("quantiseRows", { x: dense, codes, scales, numRows, width, xRowStride: width });
  }

  dequantise(context: Context, dtype: Dtype): Tensor {
    const [numRows, width] = this.shape;
    const [codes, scales] = this.parts;
    const y = context.empty(this.shape, dtype);
    context.device.run("dequantiseRows", { codes, scales, y, numRows, width });
    return y;
  }

  multiply(context: Context, { x, y, bias }: QuantisedProduct): void {
    context.scope(() => this.multiplyCodes(context, { codes: quantiseRows(context, x), y, bias }));
  }

  multiplyCodes(
    context: Context,
    { codes, y, bias }: Pick<QuantisedProduct, "y" | "bias"> & { codes: RowCodes },
  ): void {
    const [n, k] = this.shape;
    const [b, bScales] = this.parts;
    const [m, ldc] = [codes.codes.numRows, n];
    const rows = { a: codes.codes, aScales: codes.scales };
    context.device.run("matmulScaled", { ...rows, b, bScales, bias, c: y, m, n, k, ldc });
  }
}
