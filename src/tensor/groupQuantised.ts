/**
 * Weights in int8, nf4 and int4: codes with scales for groups, which may be quantised too. A few rows are multiplied straight from the codes
 * (decoding); for many, the weight is made whole for the length of one product.
 */
import { invariant } from "../base/index.ts";
import type { Dtype, Shape } from "../base/index.ts";
import { groupFormats, isPacked } from "../device/index.ts";
import type { Device, GroupFormat } from "../device/index.ts";
import type { Context } from "./context.ts";
import { matmulInto } from "./ops/linear.ts";
import { QuantisedWeight } from "./quantised.ts";
import type { QuantisedPart, QuantisedProduct } from "./quantised.ts";
import { quantiseScales, scaleGroupSize, scaleTable } from "./quantisedScales.ts";
import type { Tensor } from "./tensor.ts";

/** Elements that share a scale: rows for int8, QLoRA's 64 for the packed formats. */
const packedGroupSize = 64;
/** Rows of x up to which a product reads the codes: beyond, making the weight whole costs less than it saves. */
const mostFewRows = 16;

export interface GroupOptions {
  /** A multiple of 32, or at least the width. 64 for nf4 and int4, whole rows for int8 by default. */
  groupSize?: number;
  /** Whether the scales are quantised to 8 bits too. Default: for nf4, as QLoRA does. int4's signed scales cannot be. */
  isDouble?: boolean;
}

function resolve([, width]: Shape, { format, groupSize, isDouble }: GroupOptions & { format: GroupFormat }) {
  return {
    groupSize: groupSize ?? (isPacked(format) ? packedGroupSize : width),
    isDouble: isDouble ?? format === "nf4",
  };
}

/** Codes; then scales, or their codes and the scales of those. */
export function groupParts(shape: Shape, options: GroupOptions & { format: GroupFormat }): QuantisedPart[] {
  const [numRows, width] = shape;
  const { groupSize, isDouble } = resolve(shape, options);
  const numGroups = numRows * Math.ceil(width / groupSize);
  const rowBytes = isPacked(options.format) ? Math.ceil(width / 2) : width;
  const codes: QuantisedPart = { count: numRows * rowBytes, dtype: "u8" };
  if (!isDouble) return [codes, { count: numGroups, dtype: "f32" }];
  return [
    codes,
    { count: numGroups, dtype: "u8" },
    { count: Math.ceil(numGroups / scaleGroupSize), dtype: "f32" },
    { count: scaleTable().length, dtype: "f32" },
  ];
}

export class GroupQuantisedWeight extends QuantisedWeight {
  readonly #format: GroupFormat;
  readonly #groupSize: number;
  readonly #isDouble: boolean;
  #scaleOffset = 0;

  /** Uninitialised: `assign` fills it. Throws OutOfMemoryError, ShapeError. */
  constructor(device: Device, shape: Shape, options: GroupOptions & { format: GroupFormat }) {
    const { format } = options;
    const { groupSize, isDouble } = resolve(shape, options);
    invariant(!(isDouble && format === "int4"), "signed scales are not quantised again");
    super(device, { shape, format, parts: groupParts(shape, options) });
    this.#format = format;
    this.#groupSize = groupSize;
    this.#isDouble = isDouble;
  }

  protected encode(context: Context, dense: Tensor): void {
    const [numRows, width] = this.shape;
    const [codes, second, outer, table] = this.parts;
    const layout = { numRows, width, groupSize: this.#groupSize, format: groupFormats[this.#format] };
    context.scope(() => {
      const scales = this.#isDouble ? context.empty([second.numElements], "f32") : second;
      context.device.run("quantise", { x: dense, codes, scales, ...layout });
      if (!this.#isDouble) return;
      const again = quantiseScales(Float32Array.from(scales.toArray()));
      second.setBytes(again.codes);
      outer.set(again.outerScales);
      table.set(scaleTable());
      this.#scaleOffset = again.offset;
    });
  }

  dequantise(context: Context, dtype: Dtype): Tensor {
    const [numRows, width] = this.shape;
    const y = context.empty(this.shape, dtype);
    context.device.run("dequantise", { ...this.#arguments(), y, numRows, width });
    return y;
  }

  multiply(context: Context, { x, y, bias }: QuantisedProduct): void {
    const [n, k] = this.shape;
    const m = x.numRows;
    if (m <= mostFewRows) {
      context.device.run("matmulQuantised", { ...this.#arguments(), x, bias, y, m, n, k });
      return;
    }
    context.scope(() => {
      const weight = this.dequantise(context, x.dtype);
      matmulInto(context, { a: x, b: weight, c: y }, { m, n, k, transposeB: true, bias });
    });
  }

  #arguments() {
    const [codes, second, outer, table] = this.parts;
    const scales = this.#isDouble
      ? { scales: undefined, scaleCodes: second, scaleScales: outer, scaleTable: table }
      : { scales: second };
    return {
      codes,
      ...scales,
      scaleOffset: this.#scaleOffset,
      groupSize: this.#groupSize,
      format: groupFormats[this.#format],
    };
  }
}
