/**
 * Adapters chosen row by row: a row's bits do not hang on the rows beside it, whether they share its adapter or not; nor on whether the
 * operators are queued one by one or lie in a graph, where their kernels read factors ahead.
 */
import { expect, it } from "vitest";
import { dtypeBytes } from "../../src/base/index.ts";
import type { TensorArgument } from "../../src/device/index.ts";
import { placeTensor, readTensor } from "../host-tensors.ts";
import { everyDevice, openAnyOrSkip } from "./every-device.ts";

interface Layout {
  slots: readonly number[];
  widthIn: number;
  widths: readonly number[];
  rank: number;
}

const inTurn = (numRows: number, numSlots: number): number[] =>
  Array.from({ length: numRows }, (_, row) => (row % (numSlots + 1)) - 1);
const layouts: readonly Layout[] = [
  // Few rows, then as many as share readings; and beyond a window of 256.
  { slots: inTurn(9, 3), widthIn: 136, widths: [70, 20, 20], rank: 16 },
  { slots: inTurn(41, 3), widthIn: 136, widths: [70, 20, 20], rank: 16 },
  { slots: inTurn(270, 2), widthIn: 16, widths: [24], rank: 8 },
  { slots: inTurn(40, 4), widthIn: 33, widths: [19, 7], rank: 3 },
];

const settings = everyDevice.flatMap((kind) =>
  (["f32", "bf16"] as const).flatMap((dtype) => layouts.map((layout) => ({ kind, dtype, layout }))),
);

it.for(settings)(
  "$kind, $dtype, $layout.slots.length rows, $layout.widthIn to $layout.widths, rank $layout.rank",
  async ({ kind, dtype, layout }, test) => {
    using device = await openAnyOrSkip(kind, test);
    const { slots, widthIn, widths, rank } = layout;
    const numRows = slots.length;
    const numSlots = 1 + Math.max(...slots);
    const numParts = widths.length;
    const [secondStart, second = 0, third = 0] = widths;
    const width = secondStart + second + third;
    const noise = (length: number, seed: number): Float64Array =>
      Float64Array.from({ length }, (_, i) => Math.sin((i + seed) * (i + 1.7)));
    const x = placeTensor(device, dtype, noise(numRows * widthIn, 1));
    const slotTensor = placeTensor(device, "i32", [...slots]);
    const a = placeTensor(device, dtype, noise(numSlots * numParts * rank * widthIn, 2));
    const b = placeTensor(device, dtype, noise(numSlots * width * rank, 3));
    const scales = placeTensor(device, "f32", noise(numSlots * numParts, 4));
    const from = (tensor: TensorArgument, element: number): TensorArgument => ({
      ...tensor,
      byteOffset: element * dtypeBytes(tensor.dtype),
    });
    const place = () => ({
      low: placeTensor(device, "f32", noise(numRows * numParts * rank, 5)),
      y: placeTensor(device, dtype, noise(numRows * width, 6)),
    });
    const add = ({ low, y }: ReturnType<typeof place>, first: number, count: number): void => {
      const lowRank = numParts * rank;
      const shared = {
        slots: from(slotTensor, first),
        low: from(low, first * lowRank),
        numRows: count,
        numSlots,
      };
      device.run("adapterDown", {
        ...shared,
        x: from(x, first * widthIn),
        a,
        width: widthIn,
        rank: lowRank,
        xRowStride: widthIn,
      });
      device.run("adapterUp", {
        ...shared,
        b,
        scales,
        y: from(y, first * width),
        width,
        rank,
        numParts,
        secondStart,
        thirdStart: secondStart + second,
        yRowStride: width,
      });
    };

    const apart = place();
    for (let row = 0; row < numRows; row++) add(apart, row, 1);
    const together = place();
    add(together, 0, numRows);
    const captured = place();
    using graph = device.capture(() => add(captured, 0, numRows));
    graph.replay();
    device.synchronize();

    const expected = readTensor(apart.y);
    const before = readTensor(place().y);
    for (let row = 0; row < numRows; row++) {
      const isChanged = expected
        .slice(row * width, (row + 1) * width)
        .some((value, j) => value !== before[row * width + j]);
      expect(isChanged, `row ${row}`).toBe(slots[row] >= 0);
    }
    for (const { low, y } of [together, captured]) {
      expect(readTensor(low)).toEqual(readTensor(apart.low));
      expect(readTensor(y)).toEqual(expected);
    }
  },
);
