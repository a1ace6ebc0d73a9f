/** Codes of rows made together with a norm or an activation against quantiseRows of what these store: the same bits on every device. */
import { expect, it } from "vitest";
import { activationKinds } from "../../src/device/index.ts";
import type { Device, TensorArgument } from "../../src/device/index.ts";
import { placeTensor, readTensor } from "../host-tensors.ts";
import { everyDevice, openAnyOrSkip } from "./every-device.ts";

const shapes = [
  { numRows: 3, width: 5 },
  { numRows: 9, width: 1024 },
  { numRows: 130, width: 264 },
  { numRows: 2, width: 4096 },
  { numRows: 3, width: 16_384 },
];
const settings = everyDevice.flatMap((kind) =>
  (["f32", "bf16"] as const).flatMap((dtype) => shapes.map((shape) => ({ kind, dtype, ...shape }))),
);

/** Numbers of very different sizes, and a whole row of zeros. */
function noise(numRows: number, width: number, seed: number): Float64Array {
  return Float64Array.from({ length: numRows * width }, (_, i) => {
    const row = Math.floor(i / width);
    return row === 1 ? 0 : 3 ** (row % 5) * Math.sin((i + seed) * (i + 1.7));
  });
}

function emptyCodes(device: Device, numRows: number, width: number) {
  return {
    codes: placeTensor(device, "u8", new Float64Array(numRows * width).fill(0x55)),
    scales: placeTensor(device, "f32", new Float64Array(numRows).fill(-1)),
  };
}

/** What quantiseRows makes of stored rows. */
function quantised(device: Device, x: TensorArgument, numRows: number, width: number) {
  const found = emptyCodes(device, numRows, width);
  device.run("quantiseRows", { x, ...found, numRows, width, xRowStride: width });
  return found;
}

function expectSame(
  got: Readonly<Record<"codes" | "scales", TensorArgument>>,
  wanted: Readonly<Record<"codes" | "scales", TensorArgument>>,
): void {
  expect(readTensor(got.scales)).toEqual(readTensor(wanted.scales));
  expect(readTensor(got.codes)).toEqual(readTensor(wanted.codes));
}

it.for(settings)("norms, $kind, $dtype, ($numRows, $width)", async ({ kind, dtype, ...shape }, test) => {
  using device = await openAnyOrSkip(kind, test);
  const { numRows, width } = shape;
  const place = (seed: number): TensorArgument => placeTensor(device, dtype, noise(numRows, width, seed));
  const [x, addend] = [place(1), place(2)];
  const [gain, bias] = [3, 4].map((seed) => placeTensor(device, dtype, noise(1, width, seed)));
  for (const op of ["layerNormForward", "rmsNormForward"] as const) {
    const [y, sum] = [place(5), place(6)];
    const found = emptyCodes(device, numRows, width);
    const args = { x, addend, gain, sum, y, ...found, ...shape, eps: 1e-5, gainOffset: 1 };
    if (op === "layerNormForward") device.run(op, { ...args, bias });
    else device.run(op, args);
    const plain = place(7);
    const { codes: _codes, scales: _scales, ...without } = args;
    if (op === "layerNormForward") device.run(op, { ...without, bias, y: plain });
    else device.run(op, { ...without, y: plain });
    expect(readTensor(y)).toEqual(readTensor(plain));
    expectSame(found, quantised(device, y, numRows, width));
  }
});

it.for(settings)(
  "activations, $kind, $dtype, ($numRows, $width)",
  async ({ kind, dtype, ...shape }, test) => {
    using device = await openAnyOrSkip(kind, test);
    const { numRows, width } = shape;
    for (const name of ["squared-relu", "silu", "sigmoid"] as const)
      for (const gated of [0, 1]) {
        const activation = activationKinds[name];
        const x = placeTensor(device, dtype, noise(numRows, width * (1 + gated), 1));
        const y = placeTensor(device, dtype, noise(numRows, width, 2));
        if (gated === 1) device.run("gatedActivationForward", { x, y, ...shape, kind: activation });
        else device.run("activationForward", { x, y, numElements: numRows * width, kind: activation });
        const found = emptyCodes(device, numRows, width);
        device.run("activationCodes", { x, ...found, ...shape, kind: activation, gated });
        expectSame(found, quantised(device, y, numRows, width));
      }
  },
);
