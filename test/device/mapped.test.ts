/** Buffers that show files: every kernel that reads weights at any offset the format allows, no way to write, and an end to the mapping. */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { platform, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { decodeValues, DeviceError, DisposedError, encodeValues, invariant } from "../../src/base/index.ts";
import type { FileRange } from "../../src/base/index.ts";
import { CpuDevice } from "../../src/device/cpu/device.ts";
import { createCpuDevice } from "../../src/device/cpu/index.ts";
import { supportedLevels } from "../../src/device/cpu/levels.ts";
import type { DeviceBuffer, OpArguments, TensorArgument } from "../../src/device/index.ts";
import { DataSource } from "../conformance/random.ts";

let folder: string;
let path: string;
let descriptors: number[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nautilus-mapped-"));
  path = join(folder, "weights");
  descriptors = [];
});
afterEach(() => {
  for (const descriptor of descriptors) closeSync(descriptor);
  rmSync(folder, { recursive: true });
});

/** `bytes` in a file of their own, `position` bytes from its start. */
function rangeOf(bytes: Uint8Array, position: number): FileRange {
  writeFileSync(path, Buffer.concat([new Uint8Array(position).fill(0xff), bytes]));
  const descriptor = openSync(path, "r");
  descriptors.push(descriptor);
  return { descriptor, position, byteLength: bytes.byteLength };
}

function mapped(device: CpuDevice, range: FileRange): DeviceBuffer {
  const buffer = device.mapFile(range);
  invariant(buffer !== undefined, "a file of this system can be mapped");
  return buffer;
}

const bytesOf = (device: CpuDevice, buffer: DeviceBuffer): Uint8Array => {
  const bytes = new Uint8Array(buffer.byteLength);
  device.download(buffer, 0, bytes);
  return bytes;
};

/** How often this process maps the file. */
const numMappings = (): number => readFileSync("/proc/self/maps", "utf8").split(`${path}\n`).length - 1;

// Data of safetensors files begins at multiples of 8 where they are written with care, and of the dtype's size where they are not.
const positions = [0, 2, 4, 6, 8, 24, 60, 62, 4094, 4096, 4104] as const;
const dtypes = ["f32", "bf16"] as const;
const cases = supportedLevels().flatMap((level) => dtypes.map((dtype) => ({ level, dtype })));

describe.each(cases)("$dtype weights in a file, $level kernels", ({ level, dtype }) => {
  // Odd sizes: rows begin at any multiple of the dtype's size, wherever the first one does.
  const [numWeights, width] = [131, 197];
  const data = new DataSource(`mapped ${level} ${dtype}`);
  const weights = encodeValues(dtype, data.normal(numWeights * width)());

  it("give what they give in memory", async () => {
    using device = await createCpuDevice({ level, threads: 2 });
    const upload = (bytes: Uint8Array): DeviceBuffer => {
      const buffer = device.allocate(bytes.byteLength);
      device.upload(buffer, 0, bytes);
      return buffer;
    };
    const floats = (count: number): TensorArgument => ({
      buffer: upload(encodeValues(dtype, data.normal(count)())),
      byteOffset: 0,
      dtype,
    });
    const numRows = [1, 3, 64, 150];
    const inputs = numRows.map((count) => floats(count * width));
    const gradients = numRows.map((count) => floats(count * numWeights));
    const tokens: TensorArgument = {
      buffer: upload(encodeValues("i32", [0, 130, 7, 7, 64])),
      byteOffset: 0,
      dtype: "i32",
    };
    /** The bytes of everything that is computed from weights of a model for inference. */
    const results = (weight: TensorArgument): Buffer => {
      const outputs: Uint8Array[] = [];
      const output = (count: number, body: (y: TensorArgument) => void): void => {
        using buffer = device.allocate(count * (dtype === "f32" ? 4 : 2));
        body({ buffer, byteOffset: 0, dtype });
        outputs.push(bytesOf(device, buffer));
      };
      const product = { alpha: 1, beta: 0, transposeA: 0 };
      for (const [i, m] of numRows.entries()) {
        output(m * numWeights, (c) => {
          const args = { ...product, a: inputs[i], b: weight, c, m, n: numWeights, k: width };
          device.run("matmul", { ...args, lda: width, ldb: width, ldc: numWeights, transposeB: 1 });
        });
        output(m * width, (c) => {
          const args = { ...product, a: gradients[i], b: weight, c, m, n: width, k: numWeights };
          device.run("matmul", { ...args, lda: numWeights, ldb: width, ldc: width, transposeB: 0 });
        });
      }
      output(5 * width, (y) => {
        device.run("embeddingForward", { tokens, weight, y, numRows: 5, width, vocabSize: numWeights });
      });
      output(numWeights * width, (y) => {
        device.run("convert", { x: weight, y, numElements: numWeights * width });
      });
      output(numWeights, (norms) => {
        device.run("rowNorms", { x: weight, norms, numRows: numWeights, width });
      });
      return Buffer.concat(outputs);
    };
    const expected = results({ buffer: upload(weights), byteOffset: 0, dtype });
    // At the last one the weights end with a page: whoever reads on leaves the mapping.
    for (const position of [...positions, 8192 - (weights.byteLength % 4096)]) {
      if (dtype === "f32" && position % 4 !== 0) continue;
      using buffer = mapped(device, rangeOf(weights, position));
      expect(results({ buffer, byteOffset: 0, dtype }).equals(expected), `at byte ${position}`).toBe(true);
    }
  });
});

describe("a mapped buffer", () => {
  const bytes = Uint8Array.from({ length: 10_000 }, (_, i) => i % 251);

  it("cannot be written in any way, and stays what the file is", async () => {
    using device = await createCpuDevice({ threads: 1 });
    using buffer = mapped(device, rangeOf(bytes, 8));
    using other = device.allocate(bytes.byteLength);
    const y: TensorArgument = { buffer, byteOffset: 0, dtype: "f32" };
    const x: TensorArgument = { buffer: other, byteOffset: 0, dtype: "f32" };
    const fill: OpArguments<"fill"> = { y, numElements: 4, value: 1 };
    const writes = [
      () => device.upload(buffer, 0, new Uint8Array(4)),
      () => device.copy(other, 0, buffer, 0, 4),
      () => device.run("fill", fill),
      () => device.run("convert", { x, y, numElements: 4 }),
      () => device.run("add", { a: x, b: x, y, numElements: 4 }),
      () => device.capture(() => device.run("fill", fill)),
      () => device.capture(() => device.copy(other, 0, buffer, 0, 4)),
    ];
    for (const write of writes) {
      expect(write).toThrow(DeviceError);
      expect(write).toThrow(
        "expected a buffer that can be written, got one that shows a file (open the model without",
      );
    }
    device.copy(buffer, 100, other, 7, 50);
    expect(bytesOf(device, other).subarray(7, 57)).toEqual(bytes.subarray(100, 150));
    expect(device.readback(buffer, 20, 5).wait()).toEqual(bytes.subarray(20, 25));
    expect(bytesOf(device, buffer)).toEqual(bytes);
    expect(new Uint8Array(readFileSync(path)).subarray(8)).toEqual(bytes);
  });

  it("is read by captured programs", async () => {
    using device = await createCpuDevice({ threads: 1 });
    const values = Array.from({ length: 100 }, (_, i) => i);
    using buffer = mapped(device, rangeOf(encodeValues("f32", values), 4));
    using target = device.allocate(200);
    using graph = device.capture(() =>
      device.run("convert", {
        x: { buffer, byteOffset: 0, dtype: "f32" },
        y: { buffer: target, byteOffset: 0, dtype: "bf16" },
        numElements: 100,
      }),
    );
    graph.replay();
    expect([...decodeValues("bf16", bytesOf(device, target))]).toEqual(values);
  });

  it.skipIf(platform() !== "linux")(
    "is mapped until it is disposed, whatever becomes of the device",
    async () => {
      const device = await createCpuDevice({ threads: 1 });
      const range = rangeOf(bytes, 4090);
      const [first, second] = [mapped(device, range), mapped(device, range)];
      expect(device.memory()).toMatchObject({ mappedBytes: 20_000, liveBytes: 0, reservedBytes: 0 });
      device.fetchMapped([
        { buffer: first, byteOffset: 0, byteLength: 10_000 },
        { buffer: second, byteOffset: 5, byteLength: 9000 },
      ]);
      expect(numMappings()).toBe(2);
      closeSync(range.descriptor);
      descriptors = [];
      expect(bytesOf(device, second)).toEqual(bytes);
      second.dispose();
      second.dispose();
      expect(numMappings()).toBe(1);
      expect(device.memory().mappedBytes).toBe(10_000);
      expect([first.isDisposed, second.isDisposed]).toEqual([false, true]);
      expect(() => bytesOf(device, second)).toThrow(DisposedError);
      device.dispose();
      expect(numMappings()).toBe(1);
      expect(() => device.mapFile(range)).toThrow(DisposedError);
      first.dispose();
      expect(numMappings()).toBe(0);
    },
  );

  it("is not made of what the file does not have, nor where the system maps nothing", async () => {
    using device = await createCpuDevice({ threads: 1 });
    const range = rangeOf(bytes, 8);
    expect(device.mapFile({ ...range, byteLength: range.byteLength + 1 })).toBeUndefined();
    expect(device.mapFile({ ...range, position: 2 ** 40 })).toBeUndefined();
    expect(device.mapFile({ ...range, byteLength: 0 })).toBeUndefined();
    expect(device.mapFile({ ...range, descriptor: 12_345 })).toBeUndefined();
    truncateSync(path, 9000);
    expect(device.mapFile(range)).toBeUndefined();
    // A system without mmap, such as Windows.
    using without = new CpuDevice({ ...device.kernels, map: () => 0 }, 1);
    expect(without.mapFile({ ...range, byteLength: 100 })).toBeUndefined();
    expect(without.memory().mappedBytes).toBe(0);
  });
});
