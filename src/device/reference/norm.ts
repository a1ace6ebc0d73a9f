/**
 * Reference: LayerNorm (Ba et al., 2016; with gainOffset 1 NeMo's zero-centred "layernorm1p") and RMSNorm (Zhang and Sennrich, 2019),
 * with the residual addition before them, and their gradients.
 */
import type { OpArguments, TensorArgument } from "../contract.ts";
import { read, write } from "./memory.ts";
import { writeRowCodes } from "./quantise.ts";
import type { ReferenceKernels } from "./kernels.ts";

type ForwardArguments = OpArguments<"rmsNormForward"> & {
  bias?: TensorArgument | undefined;
  mean?: TensorArgument | undefined;
};

/** s of the table, row-major; stored and rounded to its dtype where `sum` is given. */
function addResidual({ x, addend, sum, numRows, width }: ForwardArguments): Float64Array {
  const s = read(x, numRows * width);
  if (addend !== undefined) {
    const added = read(addend, numRows * width);
    for (let i = 0; i < s.length; i++) s[i] += added[i];
  }
  if (sum === undefined) return s;
  write(sum, s);
  return read(sum, s.length);
}

function forward(args: ForwardArguments, { isCentred }: { isCentred: boolean }): void {
  const { gain, bias, y, mean, rstd, codes, scales, numRows, width, eps, gainOffset } = args;
  const scale = read(gain, width).map((value) => value + gainOffset);
  const shift = bias === undefined ? new Float64Array(width) : read(bias, width);
  const s = addResidual(args);
  const means = new Float64Array(numRows);
  const rstds = new Float64Array(numRows);
  const out = new Float64Array(numRows * width);
  for (let row = 0; row < numRows; row++) {
    const at = row * width;
    let total = 0;
    for (let i = 0; i < width; i++) total += s[at + i];
    const average = isCentred ? total / width : 0;
    let squares = 0;
    for (let i = 0; i < width; i++) squares += (s[at + i] - average) ** 2;
    const factor = 1 / Math.sqrt(squares / width + eps);
    for (let i = 0; i < width; i++) out[at + i] = (s[at + i] - average) * factor * scale[i] + shift[i];
    means[row] = average;
    rstds[row] = factor;
  }
  write(y, out);
  if (mean !== undefined) write(mean, means);
  if (rstd !== undefined) write(rstd, rstds);
  if (codes !== undefined && scales !== undefined)
    writeRowCodes(read(y, numRows * width), { codes, scales, numRows, width });
}

type BackwardArguments = OpArguments<"rmsNormBackward"> & {
  mean?: TensorArgument | undefined;
  dbias?: TensorArgument | undefined;
};

/**
 * With xHat = (s - mean) rstd and g = dy (gain + gainOffset): dx = rstd (g - average(g) - xHat average(g xHat)) + dsum, where
 * average(g) is the share of the mean and drops out of RMSNorm.
 */
function backward(args: BackwardArguments, { isCentred }: { isCentred: boolean }): void {
  const { dy, x, gain, mean, rstd, dsum, dx, dgain, dbias, numRows, width, gainOffset } = args;
  const gradients = read(dy, numRows * width);
  const s = read(x, numRows * width);
  const scale = read(gain, width).map((value) => value + gainOffset);
  const means = mean === undefined ? new Float64Array(numRows) : read(mean, numRows);
  const rstds = read(rstd, numRows);
  const out = dsum === undefined ? new Float64Array(numRows * width) : read(dsum, numRows * width);
  const gainSums = dgain === undefined ? new Float64Array(width) : read(dgain, width);
  const biasSums = dbias === undefined ? new Float64Array(width) : read(dbias, width);
  for (let row = 0; row < numRows; row++) {
    const at = row * width;
    const xHat = (i: number): number => (s[at + i] - means[row]) * rstds[row];
    let average = 0;
    let correlation = 0;
    for (let i = 0; i < width; i++) {
      const g = gradients[at + i] * scale[i];
      average += g / width;
      correlation += (g * xHat(i)) / width;
      gainSums[i] += gradients[at + i] * xHat(i);
      biasSums[i] += gradients[at + i];
    }
    const centring = isCentred ? average : 0;
    for (let i = 0; i < width; i++) {
      out[at + i] += rstds[row] * (gradients[at + i] * scale[i] - centring - xHat(i) * correlation);
    }
  }
  write(dx, out);
  if (dgain !== undefined) write(dgain, gainSums);
  if (dbias !== undefined) write(dbias, biasSums);
}

export const normKernels = {
  layerNormForward: (args) => forward(args, { isCentred: true }),
  layerNormBackward: (args) => backward(args, { isCentred: true }),
  rmsNormForward: (args) => forward(args, { isCentred: false }),
  rmsNormBackward: (args) => backward(args, { isCentred: false }),
} satisfies Partial<ReferenceKernels>;
