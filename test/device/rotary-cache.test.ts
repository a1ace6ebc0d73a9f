/** Rotary positions on the way into the cache against rotary and kvCacheWrite one after the other: the same bits on every device. */
import { expect, it } from "vitest";
import { dtypeBytes } from "../../src/base/index.ts";
import type { TensorArgument } from "../../src/device/index.ts";
import { placeTensor, readTensor } from "../host-tensors.ts";
import { everyDevice, openAnyOrSkip } from "./every-device.ts";

const numRows = 9;
const numSlots = 16;
const maxPositions = 40;
/** Rows that are skipped have a negative slot. */
const slots = [3, -1, 0, 15, -1, 7, 8, 1, 12];
const positions = [0, 39, 5, 17, 0, 21, 22, 1, 38];

const layouts = [
  { numHeads: 4, numKvHeads: 4, headDim: 128, rotaryDim: 64 },
  { numHeads: 6, numKvHeads: 2, headDim: 64, rotaryDim: 64 },
  { numHeads: 3, numKvHeads: 1, headDim: 10, rotaryDim: 6 },
];

interface Placed {
  qkv: TensorArgument;
  kCache: TensorArgument;
  vCache: TensorArgument;
  kScales?: TensorArgument;
  vScales?: TensorArgument;
}

const settings = everyDevice.flatMap((kind) =>
  (["f32", "bf16"] as const).flatMap((dtype) =>
    (["floats", "codes"] as const).flatMap((form) =>
      layouts.map((layout) => ({ kind, dtype, form, layout })),
    ),
  ),
);

it.for(settings)("$kind, $dtype, $form, heads of $layout.headDim", async (setting, test) => {
  const { kind, dtype, form, layout } = setting;
  using device = await openAnyOrSkip(kind, test);
  const { numHeads, numKvHeads, headDim, rotaryDim } = layout;
  const kvWidth = numKvHeads * headDim;
  const width = numHeads * headDim + 2 * kvWidth;
  const noise = (length: number, seed: number): Float64Array =>
    Float64Array.from({ length }, (_, i) => 3 * Math.sin((i + seed) * (i + 1.7)));
  const angles = Float64Array.from({ length: maxPositions * rotaryDim }, (_, i) => {
    const angle = Math.floor(i / rotaryDim) / 3 ** (i % (rotaryDim / 2));
    return i % rotaryDim < rotaryDim / 2 ? Math.cos(angle) : Math.sin(angle);
  });
  const tables = {
    positions: placeTensor(device, "i32", positions),
    slots: placeTensor(device, "i32", slots),
    cosSin: placeTensor(device, "f32", angles),
  };
  const place = (): Placed => ({
    qkv: placeTensor(device, dtype, noise(numRows * width, 1)),
    ...(form === "floats"
      ? {
          kCache: placeTensor(device, dtype, noise(numSlots * kvWidth, 2)),
          vCache: placeTensor(device, dtype, noise(numSlots * kvWidth, 3)),
        }
      : {
          kCache: placeTensor(device, "u8", new Float64Array(numSlots * kvWidth)),
          vCache: placeTensor(device, "u8", new Float64Array(numSlots * kvWidth)),
          kScales: placeTensor(device, "f32", new Float64Array(numSlots * numKvHeads)),
          vScales: placeTensor(device, "f32", new Float64Array(numSlots * numKvHeads)),
        }),
  });
  const at = (tensor: TensorArgument, column: number): TensorArgument => ({
    ...tensor,
    byteOffset: column * dtypeBytes(dtype),
  });
  const written = ({ qkv, ...caches }: Placed) => ({
    k: at(qkv, numHeads * headDim),
    v: at(qkv, numHeads * headDim + kvWidth),
    slots: tables.slots,
    ...caches,
    numSlots,
    numRows,
    numKvHeads,
    headDim,
    kRowStride: width,
    vRowStride: width,
  });

  const apart = place();
  device.run("rotary", {
    x: apart.qkv,
    positions: tables.positions,
    cosSin: tables.cosSin,
    y: apart.qkv,
    numRows,
    numHeads: numHeads + numKvHeads,
    headDim,
    rotaryDim,
    xRowStride: width,
    yRowStride: width,
    inverse: 0,
  });
  device.run("kvCacheWrite", written(apart));

  const together = place();
  device.run("rotaryCacheWrite", {
    ...written(together),
    q: together.qkv,
    positions: tables.positions,
    cosSin: tables.cosSin,
    numHeads,
    rotaryDim,
    qRowStride: width,
  });
  device.synchronize();

  const queries = (qkv: TensorArgument): number[] =>
    readTensor(qkv).filter((_, i) => i % width < numHeads * headDim);
  expect(queries(together.qkv)).toEqual(queries(apart.qkv));
  const cachesOf = (from: Placed): number[][] =>
    [from.kCache, from.vCache, from.kScales, from.vScales].flatMap((tensor) =>
      tensor === undefined ? [] : [readTensor(tensor)],
    );
  expect(cachesOf(together)).toEqual(cachesOf(apart));
  // The keys and values of the projection stay as the projection left them.
  const rest = (qkv: TensorArgument): number[] =>
    readTensor(qkv).filter((_, i) => i % width >= numHeads * headDim);
  expect(rest(together.qkv)).toEqual(rest(place().qkv));
  // What is compared is not what was there before.
  expect(queries(together.qkv)).not.toEqual(queries(place().qkv));
  expect(readTensor(together.kCache)).not.toEqual(readTensor(place().kCache));
});
