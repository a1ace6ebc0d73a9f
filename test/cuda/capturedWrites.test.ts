import { expect, it } from "vitest";
import type { DeviceBuffer, TensorArgument } from "../../src/device/index.ts";
import { createReferenceDevice } from "../../src/device/reference/index.ts";
import { CapturedWrites } from "../../src/device/cuda/capturedWrites.ts";

it("tells what operators before write from what the present one does", () => {
  using device = createReferenceDevice();
  const tensor = (): TensorArgument & { buffer: DeviceBuffer } => ({
    buffer: device.allocate(16),
    byteOffset: 0,
    dtype: "f32",
  });
  const [x, y, z, copied] = [tensor(), tensor(), tensor(), tensor()];
  const writes = new CapturedWrites();
  const known = (): boolean[][] =>
    [x, y, z, copied].map(({ buffer }) => [writes.has(buffer), writes.hasEarlier(buffer)]);
  const neither = [false, false];

  writes.begin("fill", { y, numElements: 4, value: 1 });
  expect(known()).toEqual([neither, [true, false], neither, neither]);
  writes.add(copied.buffer);
  writes.begin("add", { a: x, b: y, y: z, numElements: 4 });
  expect(known()).toEqual([neither, [true, true], [true, false], [true, true]]);
});
