/** Reference: LayerNorm (plain or zero-centred) and RMSNorm with the residual addition before them, and their gradients. */
import { roundTo } from "../../base/index.ts";
import type { FloatDtype } from "../../base/index.ts";
import type { OpArguments, TensorArgument } from "../contract.ts";
import { read, write } from "./memory.ts";
import type { ReferenceKernels } from "./kernels.ts";

type ForwardArguments = Pick<
  OpArguments<"rmsNormForward">,
  "x" | "addend" | "gain" | "sum" | "y" | "rstd" | "numRows" | "width" | "eps" | "gainOffset"
> & {
  bias?: TensorArgument | undefined;
  mean?: TensorArgument | undefined;
};

function isFloat(dtype: string): dtype is FloatDtype {
  return dtype === "f32" || dtype === "bf16" || dtype === "f16" || dtype === "f64";
}

function forward(args: ForwardArguments, isCentred: boolean): void {
  const { x, addend, gain, bias, sum, y, mean, rstd, numRows, width, eps, gainOffset } = args;
  const s = read(x, numRows * width);
  if (addend !== undefined) {
    const added = read(addend, numRows * width);
    for (let i = 0; i < s.length; i++) s[i] += added[i];
  }
  if (sum !== undefined) {
    const { dtype } = sum;
    if (isFloat(dtype)) for (let i = 0; i < s.length; i++) s[i] = roundTo(dtype, s[i]);
    write(sum, s);
  }
  const scale = read(gain, width).map((value) => value + gainOffset);
  const shift = bias === undefined ? new Float64Array(width) : read(bias, width);
  const means = new Float64Array(numRows);
  const rstds = new Float64Array(numRows);
  const out = new Float64Array(numRows * width);
  for (let row = 0; row < numRows; row++) {
    const values = s.subarray(row * width, (row + 1) * width);
    means[row] = isCentred ? values.reduce((total, value) => total + value, 0) / width : 0;
    const variance = values.reduce((total, value) => total + (value - means[row]) ** 2, 0) / width;
    rstds[row] = 1 / Math.sqrt(variance + eps);
    for (let i = 0; i < width; i++)
      out[row * width + i] = (values[i] - means[row]) * rstds[row] * scale[i] + shift[i];
  }
  write(y, out);
  if (mean !== undefined) write(mean, means);
  if (rstd !== undefined) write(rstd, rstds);
}

type BackwardArguments = Pick<
  OpArguments<"rmsNormBackward">,
  "dy" | "x" | "gain" | "rstd" | "dsum" | "dx" | "dgain" | "numRows" | "width" | "gainOffset"
> & {
  mean?: TensorArgument | undefined;
  dbias?: TensorArgument | undefined;
};

/** With xHat = (s - mean) rstd and g = dy (gain + offset): dx = rstd (g - average(g) - xHat average(g xHat)); without centring, average(g) drops out. */
function backward(args: BackwardArguments): void {
  const { dy, x, gain, mean, rstd, dsum, dx, dgain, dbias, numRows, width, gainOffset } = args;
  const gradients = read(dy, numRows * width);
  const s = read(x, numRows * width);
  const scale = read(gain, width).map((value) => value + gainOffset);
  const means = mean === undefined ? new Float64Array(numRows) : read(mean, numRows);
  const rstds = read(rstd, numRows);
  const passing = dsum === undefined ? new Float64Array(numRows * width) : read(dsum, numRows * width);
  const gainSums = dgain === undefined ? new Float64Array(width) : read(dgain, width);
  const biasSums = dbias === undefined ? new Float64Array(width) : read(dbias, width);
  const out = new Float64Array(numRows * width);
  for (let row = 0; row < numRows; row++) {
    let average = 0;
    let correlation = 0;
    for (let i = 0; i < width; i++) {
      const index = row * width + i;
      const xHat = (s[index] - means[row]) * rstds[row];
      const g = gradients[index] * scale[i];
      average += g / width;
      correlation += (g * xHat) / width;
      gainSums[i] += gradients[index] * xHat;
      biasSums[i] += gradients[index];
    }
    for (let i = 0; i < width; i++) {
      const index = row * width + i;
      const xHat = (s[index] - means[row]) * rstds[row];
      const centred = mean === undefined ? 0 : average;
      out[index] = rstds[row] * (gradients[index] * scale[i] - centred - xHat * correlation) + passing[index];
    }
  }
  write(dx, out);
  if (dgain !== undefined) write(dgain, gainSums);
  if (dbias !== undefined) write(dbias, biasSums);
}

export const normKernels = {
  layerNormForward: (args) => forward(args, true),
  layerNormBackward: (args) => backward(args),
  rmsNormForward: (args) => forward(args, false),
  rmsNormBackward: (args) => backward(args),
} satisfies Partial<ReferenceKernels>;
