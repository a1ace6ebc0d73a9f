/** The CPU device itself: memory, copies, graphs, threads, errors, and what happens without a compiler. */
import { afterAll, afterEach, beforeAll, expect, it, vi } from "vitest";
import {
  ConfigError,
  decodeValues,
  DeviceError,
  DisposedError,
  InvariantError,
  encodeValues,
  OutOfMemoryError,
  RandomStream,
  setLogSink,
  UnsupportedOpError,
} from "../../src/base/index.ts";
import { createCpuDevice } from "../../src/device/cpu/index.ts";
import {
  openDevice,
  type Device,
  type DeviceBuffer,
  type OpArguments,
  type TensorArgument,
} from "../../src/device/index.ts";

let device: Device;
let owned: DeviceBuffer[] = [];

beforeAll(async () => {
  device = await createCpuDevice({ threads: 2 });
});
afterEach(() => {
  for (const buffer of owned) buffer.dispose();
  owned = [];
  const { liveBytes, numLiveBuffers } = device.memory();
  expect([liveBytes, numLiveBuffers]).toEqual([0, 0]);
  vi.unstubAllEnvs();
});
afterAll(() => {
  device.dispose();
});

function tensor(values: ArrayLike<number>, dtype: "f32" | "bf16" = "f32", on = device): TensorArgument {
  const bytes = encodeValues(dtype, values);
  const buffer = on.allocate(bytes.byteLength);
  owned.push(buffer);
  on.upload(buffer, 0, bytes);
  return { buffer, byteOffset: 0, dtype };
}

function valuesOf({ buffer, dtype }: TensorArgument, on = device): number[] {
  const bytes = new Uint8Array(buffer.byteLength);
  on.download(buffer, 0, bytes);
  return [...decodeValues(dtype, bytes)];
}

/** c (m, n) = a (m, k) b (k, n) + beta c */
function product(
  [a, b, c]: readonly TensorArgument[],
  [m, n, k]: readonly number[],
  changes: Partial<OpArguments<"matmul">> = {},
): OpArguments<"matmul"> {
  const strides = { lda: k, ldb: n, ldc: n };
  return { a, b, c, m, n, k, ...strides, transposeA: 0, transposeB: 0, alpha: 1, beta: 0, ...changes };
}

const noise = (length: number, seed: number): Float64Array => {
  const random = new RandomStream(seed);
  return Float64Array.from({ length }, () => random.nextFloat() - 0.5);
};

it("moves bytes in, within and out at any offset", () => {
  const source = device.allocate(1000);
  const target = device.allocate(1000);
  owned.push(source, target);
  const bytes = Uint8Array.from({ length: 300 }, (_, index) => index % 251);
  device.upload(source, 17, bytes);
  device.copy(source, 17, target, 601, 300);
  const into = new Uint8Array(300);
  device.download(target, 601, into);
  expect(into).toEqual(bytes);
  const readback = device.readback(target, 611, 5);
  device.upload(target, 611, new Uint8Array(5));
  expect([...readback.wait()]).toEqual([10, 11, 12, 13, 14]);
  expect(() => device.upload(target, 900, new Uint8Array(101))).toThrow(InvariantError);
  expect(() => device.copy(source, 0, target, -1, 2)).toThrow(InvariantError);
});

it("counts live bytes as asked for, with their peak, and takes empty buffers", () => {
  device.resetPeakMemory();
  const first = device.allocate(1001);
  const second = device.allocate(0);
  expect(device.memory()).toMatchObject({ liveBytes: 1001, numLiveBuffers: 2, peakLiveBytes: 1001 });
  first.dispose();
  first.dispose();
  second.dispose();
  expect(device.memory()).toMatchObject({ liveBytes: 0, numLiveBuffers: 0, peakLiveBytes: 1001 });
  device.trimMemory();
  expect(device.memory().reservedBytes).toBe(0);
});

it("refuses buffers after disposal, other devices' buffers, and absurd sizes", async () => {
  const a = tensor([1, 2, 3, 4]);
  const c = tensor([0, 0, 0, 0]);
  const args = product([a, a, c], [2, 2, 2]);
  device.run("matmul", args);
  expect(valuesOf(c)).toEqual([7, 10, 15, 22]);
  a.buffer.dispose();
  expect(() => device.run("matmul", args)).toThrow(DisposedError);
  expect(() => device.download(a.buffer, 0, new Uint8Array(1))).toThrow(DisposedError);
  using other = await createCpuDevice({ threads: 1 });
  expect(() => other.run("matmul", args)).toThrow(InvariantError);
  expect(() => device.allocate(2 ** 50)).toThrow(OutOfMemoryError);
});

it("frees buffers that outlive their device when they are disposed", async () => {
  const other = await createCpuDevice({ threads: 1 });
  const buffer = other.allocate(100);
  other.dispose();
  other.dispose();
  expect(() => other.allocate(1)).toThrow(DisposedError);
  expect(() => other.upload(buffer, 0, new Uint8Array(1))).toThrow(DisposedError);
  buffer.dispose();
});

it("replays a recording bit for bit like running its operators", () => {
  const [m, n, k] = [37, 41, 53];
  const inputs = [tensor(noise(m * k, 1)), tensor(noise(k * n, 2))];
  const eager = tensor(noise(m * n, 3));
  const replayed = tensor(noise(m * n, 3));
  const kept = tensor(new Float64Array(m * n));
  const step = (c: TensorArgument): void => {
    device.run("matmul", product([...inputs, c], [m, n, k], { beta: 0.5 }));
    device.copy(c.buffer, 0, kept.buffer, 0, 4 * m * n);
  };
  using graph = device.capture(() => {
    step(replayed);
  });
  expect(valuesOf(replayed)).toEqual([...new Float32Array(noise(m * n, 3))]);
  for (let count = 0; count < 3; count++) {
    step(eager);
    graph.replay();
    expect(valuesOf(replayed)).toEqual(valuesOf(eager));
    expect(valuesOf(kept)).toEqual(valuesOf(eager));
  }
  graph.dispose();
  expect(() => graph.replay()).toThrow(DisposedError);
});

it("keeps a recording's temporaries for it alone", () => {
  const one = tensor([2]);
  const result = tensor([0]);
  using graph = device.capture(() => {
    const temporary = device.allocate(4);
    const middle: TensorArgument = { buffer: temporary, byteOffset: 0, dtype: "f32" };
    device.run("matmul", product([one, one, middle], [1, 1, 1]));
    device.run("matmul", product([middle, one, result], [1, 1, 1]));
    temporary.dispose();
  });
  const others = Array.from({ length: 8 }, () => tensor([5]));
  graph.replay();
  expect(valuesOf(result)).toEqual([8]);
  for (const other of others) expect(valuesOf(other)).toEqual([5]);
});

it("gives up a recording that fails, and works on", () => {
  const one = tensor([3]);
  const result = tensor([0]);
  expect(() =>
    device.capture(() => {
      device.upload(one.buffer, 0, new Uint8Array(4));
    }),
  ).toThrow(InvariantError);
  expect(() =>
    device.capture(() => {
      device.run("matmul", product([one, { ...one, dtype: "bf16" }, result], [1, 1, 1]));
    }),
  ).toThrow(UnsupportedOpError);
  device.run("matmul", product([one, one, result], [1, 1, 1]));
  expect(valuesOf(result)).toEqual([9]);
});

it.each(["f32", "bf16"] as const)(
  "gives the same bits in %s whatever the number of threads",
  async (dtype) => {
    for (const [m, n, k, transposeB] of [
      [150, 190, 1100, 0],
      [5, 3000, 130, 1],
      [700, 33, 64, 0],
    ]) {
      const [a, b] = [noise(m * k, 4), noise(k * n, 5)];
      const results: number[][] = [];
      for (const threads of [1, 2, 3]) {
        using other = await createCpuDevice({ threads });
        const tensors = [
          tensor(a, dtype, other),
          tensor(b, dtype, other),
          tensor(noise(m * n, 6), dtype, other),
        ];
        const ldb = transposeB === 1 ? k : n;
        other.run("matmul", product(tensors, [m, n, k], { transposeB, ldb, beta: 1 }));
        results.push(valuesOf(tensors[2], other));
      }
      expect(results[1]).toEqual(results[0]);
      expect(results[2]).toEqual(results[0]);
    }
  },
);

it("says which dtypes an operator takes, and refuses the others by name", () => {
  expect(device.supports("matmul", { a: "f32", b: "f32", c: "f32" })).toBe(true);
  expect(device.supports("matmul", { a: "bf16", b: "bf16", c: "f32", bias: "bf16" })).toBe(true);
  expect(device.supports("matmul", { a: "f32", b: "bf16", c: "f32" })).toBe(false);
  const tensors = [tensor([1]), tensor([1], "bf16"), tensor([1])];
  expect(() => device.run("matmul", product(tensors, [1, 1, 1]))).toThrow(
    "[cpu] expected an operator with a CPU kernel, got matmul (a f32, b bf16, c f32)",
  );
});

it("checks the number of threads and the level", async () => {
  await expect(createCpuDevice({ threads: 0 })).rejects.toThrow(ConfigError);
  await expect(createCpuDevice({ threads: 1.5 })).rejects.toThrow(
    "expected threads between 1 and 1024, got 1.5",
  );
  vi.stubEnv("NAUTILUS_CPU_LEVEL", "sse9");
  await expect(createCpuDevice()).rejects.toThrow(/expected NAUTILUS_CPU_LEVEL to be one of .*, got 'sse9'/);
});

it("goes on with the reference backend where there is no compiler, and says so", async (context) => {
  vi.stubEnv("NAUTILUS_CXX", "/nonexistent");
  await expect(openDevice({ kind: "cpu" })).rejects.toThrow(DeviceError);
  const messages: string[] = [];
  const previous = setLogSink((level, message) => messages.push(`${level}: ${message}`));
  try {
    using fallback = await openDevice();
    if (fallback.kind === "cuda") context.skip("a GPU comes before the CPU");
    expect(fallback.kind).toBe("reference");
    expect(messages).toEqual([
      "warning: [cpu] expected a C++17 compiler, got no program /nonexistent (NAUTILUS_CXX names it); " +
        "going on with the slower reference backend",
    ]);
  } finally {
    setLogSink(previous);
  }
});
