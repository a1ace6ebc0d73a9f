/** Reference: what is written to a paged cache, of floats and of E4M3 codes, and copied within it, by hand. */
import { describe, expect, it } from "vitest";
import { placeTensor, readTensor } from "../../../test/host-tensors.ts";
import type { TensorArgument } from "../contract.ts";
import { createReferenceDevice } from "./index.ts";

const device = createReferenceDevice();
const tensor = placeTensor.bind(undefined, device);

describe("kvCacheWrite and kvCacheCopy", () => {
  it("puts rows into their slots, and skips negative ones", () => {
    const kCache = tensor("f32", [0, 0, 0, 0, 0, 0]);
    const vCache = tensor("f32", [9, 9, 9, 9, 9, 9]);
    device.run("kvCacheWrite", {
      k: tensor("f32", [1, 2, -1, 3, 4, -1, 5, 6]),
      v: tensor("f32", [7, 8, 5, 6, 3, 4]),
      slots: tensor("i32", [2, -1, 0]),
      kCache,
      vCache,
      numRows: 3,
      numSlots: 3,
      numKvHeads: 1,
      headDim: 2,
      kRowStride: 3,
      vRowStride: 2,
    });
    expect(readTensor(kCache)).toEqual([5, 6, 0, 0, 1, 2]);
    expect(readTensor(vCache)).toEqual([3, 4, 9, 9, 7, 8]);
  });

  it("makes codes of heads in a cache of u8, with scales by head and slot, and kvCacheCopy copies both", () => {
    const cache = {
      kCache: tensor(
        "u8",
        Array.from({ length: 12 }, () => 0),
      ),
      vCache: tensor(
        "u8",
        Array.from({ length: 12 }, () => 1),
      ),
      kScales: tensor("f32", [9, 9, 9, 9, 9, 9]),
      vScales: tensor("f32", [8, 8, 8, 8, 8, 8]),
      numSlots: 3,
      numKvHeads: 2,
      headDim: 2,
    };
    device.run("kvCacheWrite", {
      ...cache,
      // By 7 / 448 = 2^-6: 448 and -64; zeros: no scale.
      k: tensor("f32", [7, -1, 0, 0]),
      v: tensor("f32", [0.5, 3.5, 1e-37, -448]),
      slots: tensor("i32", [1]),
      numRows: 1,
      kRowStride: 4,
      vRowStride: 4,
    });
    expect(readTensor(cache.kCache)).toEqual([0, 0, 0, 0, 0x7e, 0xe8, 0, 0, 0, 0, 0, 0]);
    expect(readTensor(cache.kScales)).toEqual([9, 2 ** -6, 9, 9, 0, 9]);
    expect(readTensor(cache.vCache)).toEqual([1, 1, 1, 1, 0x68, 0x7e, 0, 0xfe, 1, 1, 1, 1]);
    expect(readTensor(cache.vScales)).toEqual([8, 2 ** -7, 8, 8, 1, 8]);
    device.run("kvCacheCopy", {
      ...cache,
      sources: tensor("i32", [1, 1]),
      slots: tensor("i32", [0, 2]),
      numRows: 2,
    });
    expect(readTensor(cache.kCache)).toEqual([0, 1, 2].flatMap(() => [0x7e, 0xe8, 0, 0]));
    expect(readTensor(cache.kScales)).toEqual([2 ** -6, 2 ** -6, 2 ** -6, 0, 0, 0]);
    expect(readTensor(cache.vScales)).toEqual([2 ** -7, 2 ** -7, 2 ** -7, 1, 1, 1]);
  });

  it.each(["f32", "bf16", "f16"] as const)("copies NaNs of %s with their payloads", (dtype) => {
    const { one, nan } = {
      f32: { one: 0x3f800000, nan: 0xffa12345 },
      bf16: { one: 0x3f80, nan: 0xff85 },
      f16: { one: 0x3c00, nan: 0xfd05 },
    }[dtype];
    const bits = dtype === "f32" ? Uint32Array.of(nan, one) : Uint16Array.of(nan, one);
    const cacheOf = (): TensorArgument => {
      const cache = tensor(dtype, [0, 0]);
      device.upload(cache.buffer, 0, new Uint8Array(bits.buffer));
      return cache;
    };
    const [kCache, vCache] = [cacheOf(), cacheOf()];
    device.run("kvCacheCopy", {
      kCache,
      vCache,
      sources: tensor("i32", [0]),
      slots: tensor("i32", [1]),
      numRows: 1,
      numSlots: 2,
      numKvHeads: 1,
      headDim: 1,
    });
    for (const { buffer } of [kCache, vCache]) {
      const copied = bits.slice();
      device.download(buffer, 0, new Uint8Array(copied.buffer));
      expect(copied).toEqual(bits.map(() => nan));
    }
  });
});
