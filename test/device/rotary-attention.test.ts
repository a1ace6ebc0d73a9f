/**
 * A decoding layer's attention in one pass against rotaryCacheWrite and attentionPaged one after the other: the same bits on every device, over
 * caches of floats and of E4M3 codes.
 */
import { expect, it } from "vitest";
import { dtypeBytes } from "../../src/base/index.ts";
import type { TensorArgument } from "../../src/device/index.ts";
import { e4m3CodeOf } from "../../src/device/reference/float8.ts";
import { placeTensor, readTensor } from "../host-tensors.ts";
import { everyDevice, openAnyOrSkip } from "./every-device.ts";

interface Layout {
  /** Context tokens of each sequence; of every third one the last position is in the cache already. */
  contexts: readonly number[];
  numHeads: number;
  numKvHeads: number;
  headDim: number;
  rotaryDim: number;
  blockSize: number;
}

const blocks16 = { blockSize: 16 };
const layouts: readonly Layout[] = [
  { contexts: [160], numHeads: 2, numKvHeads: 2, headDim: 128, rotaryDim: 64, ...blocks16 },
  { contexts: [700, 257, 5], numHeads: 1, numKvHeads: 1, headDim: 64, rotaryDim: 64, ...blocks16 },
  { contexts: [33, 150, 17, 16, 1], numHeads: 6, numKvHeads: 3, headDim: 64, rotaryDim: 32, ...blocks16 },
  { contexts: [90, 130, 64], numHeads: 10, numKvHeads: 2, headDim: 32, rotaryDim: 16, blockSize: 8 },
  { contexts: [70, 40], numHeads: 7, numKvHeads: 1, headDim: 256, rotaryDim: 96, ...blocks16 },
  { contexts: [7, 12], numHeads: 2, numKvHeads: 1, headDim: 10, rotaryDim: 6, blockSize: 4 },
];

const settings = everyDevice.flatMap((kind) =>
  (["f32", "bf16"] as const).flatMap((dtype) =>
    (["floats", "codes"] as const).flatMap((form) =>
      layouts.map((layout) => ({ kind, dtype, form, layout })),
    ),
  ),
);

it.for(settings)(
  "$kind, $dtype, $form, $layout.numHeads heads of $layout.headDim, contexts $layout.contexts",
  async ({ kind, dtype, form, layout }, test) => {
    using device = await openAnyOrSkip(kind, test);
    const { contexts, numHeads, numKvHeads, headDim, rotaryDim, blockSize } = layout;
    const numSequences = contexts.length;
    const kvWidth = numKvHeads * headDim;
    const qWidth = numHeads * headDim;
    const width = qWidth + 2 * kvWidth;
    const maxPositions = Math.max(...contexts);
    const maxBlocksPerSequence = Math.ceil(maxPositions / blockSize) + 1;
    // Blocks of the sequences by turns, from the end of the cache on.
    const numBlocks = numSequences * maxBlocksPerSequence;
    const blockOf = (sequence: number, index: number): number =>
      numBlocks - 1 - (index * numSequences + sequence);
    const lastSlots = contexts.map(
      (context, sequence) =>
        blockOf(sequence, Math.floor((context - 1) / blockSize)) * blockSize + ((context - 1) % blockSize),
    );
    const slots = lastSlots.map((slot, sequence) => (sequence % 3 === 2 ? -1 : slot));
    const noise = (length: number, seed: number): Float64Array =>
      Float64Array.from({ length }, (_, i) => 2 * Math.sin((i + seed) * (i + 1.7)));
    const angles = Float64Array.from({ length: maxPositions * rotaryDim }, (_, i) => {
      const angle = Math.floor(i / rotaryDim) / 3 ** (i % (rotaryDim / 2));
      return i % rotaryDim < rotaryDim / 2 ? Math.cos(angle) : Math.sin(angle);
    });
    // Whoever reads a slot that is only being written reads no number.
    const numSlots = numBlocks * blockSize;
    const written = slots.filter((each) => each >= 0);
    const valuesOf = (seed: number): Float64Array => {
      const values = noise(numSlots * kvWidth, seed);
      for (const slot of written) values.fill(Number.NaN, slot * kvWidth, (slot + 1) * kvWidth);
      return values;
    };
    const scalesOf = (seed: number): Float64Array => {
      const scales = noise(numKvHeads * numSlots, seed).map((value) => Math.abs(value) / 200 + 0.002);
      for (const slot of written)
        for (let head = 0; head < numKvHeads; head++) scales[head * numSlots + slot] = Number.NaN;
      return scales;
    };
    const placeCaches = () =>
      form === "floats"
        ? { kCache: placeTensor(device, dtype, valuesOf(2)), vCache: placeTensor(device, dtype, valuesOf(3)) }
        : {
            kCache: placeTensor(
              device,
              "u8",
              valuesOf(2).map((value) => e4m3CodeOf(150 * value)),
            ),
            vCache: placeTensor(
              device,
              "u8",
              valuesOf(3).map((value) => e4m3CodeOf(150 * value)),
            ),
            kScales: placeTensor(device, "f32", scalesOf(4)),
            vScales: placeTensor(device, "f32", scalesOf(5)),
          };
    const tables = {
      positions: placeTensor(
        device,
        "i32",
        contexts.map((context) => context - 1),
      ),
      slots: placeTensor(device, "i32", slots),
      cosSin: placeTensor(device, "f32", angles),
      blockTables: placeTensor(
        device,
        "i32",
        Array.from({ length: numBlocks }, (_, i) =>
          blockOf(Math.floor(i / maxBlocksPerSequence), i % maxBlocksPerSequence),
        ),
      ),
      contextLengths: placeTensor(device, "i32", [...contexts]),
      queryStarts: placeTensor(device, "i32", [...contexts.keys(), numSequences]),
    };
    const at = (tensor: TensorArgument, column: number): TensorArgument => ({
      ...tensor,
      byteOffset: column * dtypeBytes(dtype),
    });
    const place = () => {
      const qkv = placeTensor(device, dtype, noise(numSequences * width, 1));
      return {
        ...tables,
        q: qkv,
        k: at(qkv, qWidth),
        v: at(qkv, qWidth + kvWidth),
        ...placeCaches(),
        numSlots,
        o: placeTensor(device, dtype, new Float64Array(numSequences * qWidth)),
        numSequences,
        numHeads,
        numKvHeads,
        headDim,
        rotaryDim,
        blockSize,
        maxBlocksPerSequence,
        qRowStride: width,
        kRowStride: width,
        vRowStride: width,
        oRowStride: qWidth,
        scale: 1 / Math.sqrt(headDim),
      };
    };

    const apart = place();
    device.run("rotaryCacheWrite", { ...apart, numRows: numSequences });
    device.run("attentionPaged", { ...apart, maxQueryLength: 1 });
    const together = place();
    device.run("rotaryAttentionPaged", together);
    // Alone in a graph nothing stands in the way of reading ahead.
    const captured = place();
    using graph = device.capture(() => device.run("rotaryAttentionPaged", captured));
    graph.replay();
    device.synchronize();

    const expected = readTensor(apart.o);
    expect(expected.every((value) => Number.isFinite(value))).toBe(true);
    expect(expected.some((value) => value !== 0)).toBe(true);
    const cachesOf = (from: ReturnType<typeof place>): number[][] =>
      [from.kCache, from.vCache, from.kScales, from.vScales].flatMap((tensor) =>
        tensor === undefined ? [] : [readTensor(tensor)],
      );
    for (const result of [together, captured]) {
      expect(readTensor(result.o)).toEqual(expected);
      expect(cachesOf(result)).toEqual(cachesOf(apart));
    }
  },
);
