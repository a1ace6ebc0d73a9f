/** The reference as a device: accounting, disposal, graphs, and what it refuses. */
import { beforeEach, describe, expect, it } from "vitest";
import { placeTensor, readTensor } from "../../../test/host-tensors.ts";
import { DisposedError, InvariantError, ShapeError, UnsupportedOpError } from "../../base/index.ts";
import type { Device, OpArguments } from "../contract.ts";
import { createReferenceDevice } from "./index.ts";

let device: Device;
beforeEach(() => {
  device = createReferenceDevice();
});

describe("memory", () => {
  it("counts live bytes and buffers, and remembers their peak", () => {
    const first = device.allocate(100);
    const second = device.allocate(28);
    first.dispose();
    first.dispose();
    expect(device.memory()).toMatchObject({ liveBytes: 28, peakLiveBytes: 128, numLiveBuffers: 1 });
    device.resetPeakMemory();
    expect(device.memory().peakLiveBytes).toBe(28);
    second.dispose();
    expect(device.memory()).toMatchObject({ liveBytes: 0, numLiveBuffers: 0 });
  });

  it("is NaN before anything is written", () => {
    const buffer = device.allocate(8);
    expect(readTensor({ buffer, byteOffset: 0, dtype: "f32" })).toEqual([Number.NaN, Number.NaN]);
    expect(readTensor({ buffer, byteOffset: 0, dtype: "bf16" })).toEqual([1, 2, 3, 4].map(() => Number.NaN));
  });

  it("refuses the use of what was disposed, with a hint", () => {
    const y = placeTensor(device, "f32", [1, 2]);
    y.buffer.dispose();
    expect(y.buffer.isDisposed).toBe(true);
    expect(() => device.run("fill", { y, numElements: 2, value: 0 })).toThrow(DisposedError);
    expect(() => readTensor(y)).toThrow(
      "[reference] expected a buffer in use, got one of 8 B that was disposed (retain it, or let a wider scope own it, while it is still needed)",
    );
    device.dispose();
    expect(() => device.allocate(4)).toThrow(DisposedError);
  });

  it("copies between buffers, and keeps a readback as it was", () => {
    const x = placeTensor(device, "f32", [1, 2, 3]);
    const y = placeTensor(device, "f32", [7, 8, 9]);
    device.copy(x.buffer, 4, y.buffer, 0, 8);
    const readback = device.readback(y.buffer, 0, 4);
    device.run("fill", { y, numElements: 3, value: 0 });
    expect(new Float32Array(readback.wait().slice().buffer)).toEqual(Float32Array.of(2));
    expect(() => device.copy(x.buffer, 8, y.buffer, 0, 8)).toThrow(InvariantError);
  });
});

describe("graphs", () => {
  it("run when they are replayed, each time anew", () => {
    const x = placeTensor(device, "f32", [3]);
    const y = placeTensor(device, "f32", [1]);
    const graph = device.capture(() => {
      device.run("axpby", { x, y, numElements: 1, alpha: 1, beta: 2 });
      device.copy(y.buffer, 0, x.buffer, 0, 4);
    });
    expect(readTensor(y)).toEqual([1]);
    graph.replay();
    graph.replay();
    expect([readTensor(x), readTensor(y)]).toEqual([[15], [15]]);
    graph.dispose();
    expect(() => graph.replay()).toThrow(DisposedError);
  });

  it("take neither uploads nor downloads nor graphs, and leave the device usable after an error", () => {
    const y = placeTensor(device, "f32", [1]);
    expect(() => device.capture(() => readTensor(y))).toThrow("a download inside of a capture");
    expect(() => device.capture(() => device.upload(y.buffer, 0, new Uint8Array(4)))).toThrow(InvariantError);
    expect(() => device.capture(() => void device.capture(() => {}))).toThrow(InvariantError);
    expect(readTensor(y)).toEqual([1]);
  });
});

describe("arguments", () => {
  /** `fill` with something wrong, past the compiler. */
  const fill = (args: Readonly<Record<string, unknown>>): void =>
    device.run("fill", args as OpArguments<"fill">);

  it("must be there, whole, and not negative", () => {
    const y = placeTensor(device, "f32", [1, 2]);
    expect(() => fill({ numElements: 2, value: 0 })).toThrow("fill needs the tensor y");
    expect(() => fill({ y, numElements: -1, value: 0 })).toThrow("fill got numElements = -1");
    expect(() => fill({ y, numElements: 1.5, value: 0 })).toThrow(InvariantError);
    expect(() => fill({ y, numElements: 2 })).toThrow("fill needs a number for value");
    expect(() => fill({ y: { ...y, byteOffset: 2 }, numElements: 1, value: 0 })).toThrow("at byte 2");
    expect(readTensor(y)).toEqual([1, 2]);
  });

  it("must fit their buffers: the message names operator and tensor", () => {
    const x = placeTensor(device, "f32", [1, 2]);
    const y = placeTensor(device, "bf16", [1, 2, 3]);
    expect(() => device.run("convert", { x, y, numElements: 3 })).toThrow(ShapeError);
    expect(() => device.run("convert", { x, y, numElements: 3 })).toThrow(
      "[reference convert] expected f32 elements 0 to 3 from byte 0 on, got a buffer of 8 bytes for x",
    );
  });

  it("must be of the same device", () => {
    const y = placeTensor(createReferenceDevice(), "f32", [1]);
    expect(() => fill({ y, numElements: 1, value: 0 })).toThrow("a buffer of another device for y");
  });

  it("must have the table's dtypes, of which it knows more than the other backends", () => {
    const a = placeTensor(device, "i32", [1]);
    expect(() => device.run("add", { a, b: a, y: a, numElements: 1 })).toThrow(UnsupportedOpError);
    expect(device.supports("add", { a: "f64", b: "bf16", y: "f16" })).toBe(true);
    expect(device.supports("add", { a: "i32" })).toBe(false);
    expect(device.supports("sample", { logits: "bf16" })).toBe(false);
    expect(device.supports("fill", { y: "u8" })).toBe(true);
  });
});
