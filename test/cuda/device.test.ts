/** The CUDA device itself: memory, copies, graphs, errors, and products against float64. Skipped without a GPU. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  decodeValues,
  DeviceError,
  DisposedError,
  dtypeBytes,
  encodeValues,
  epsilons,
  OutOfMemoryError,
  ShapeError,
} from "../../src/base/index.ts";
import { createCudaDevice, type CudaDevice } from "../../src/device/cuda/index.ts";
import type { DeviceBuffer, TensorArgument } from "../../src/device/index.ts";
import { useCard } from "./card.ts";

type FloatDtype = "f32" | "bf16";
let device: CudaDevice;

const card = useCard();

beforeEach(() => {
  device = card();
});
afterEach(() => {
  const { numLiveBuffers, liveBytes } = device.memory();
  expect([numLiveBuffers, liveBytes]).toEqual([0, 0]);
});

/** Numbers in [-1, 1) from a seed. */
function noise(length: number, seed: number): Float64Array {
  const values = new Float64Array(length);
  let state = (seed * 2_654_435_761) >>> 0;
  for (let index = 0; index < length; index++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    values[index] = state / 2 ** 31 - 1;
  }
  return values;
}

function tensorOf(dtype: FloatDtype, values: ArrayLike<number>, byteOffset = 0): TensorArgument {
  const bytes = encodeValues(dtype, values);
  const buffer = device.allocate(byteOffset + bytes.byteLength);
  device.upload(buffer, byteOffset, bytes);
  return { buffer, byteOffset, dtype };
}

function valuesOf({ buffer, byteOffset, dtype }: TensorArgument): Float64Array {
  const bytes = new Uint8Array(buffer.byteLength - byteOffset);
  device.download(buffer, byteOffset, bytes);
  return decodeValues(dtype, bytes);
}

function bytesOf(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = seed + 1;
  for (let index = 0; index < length; index++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    bytes[index] = state >>> 16;
  }
  return bytes;
}

function downloaded(buffer: DeviceBuffer, byteOffset = 0, byteLength = buffer.byteLength): Buffer {
  const into = Buffer.alloc(byteLength);
  device.download(buffer, byteOffset, into);
  return into;
}

describe("copies", () => {
  it("uploads more than the pinned ring holds, at odd places, from memory that changes at once", () => {
    const bytes = bytesOf(45_000_001, 1);
    using buffer = device.allocate(bytes.byteLength + 7);
    const source = bytes.slice();
    device.upload(buffer, 5, source);
    source.fill(0);
    device.upload(buffer, 0, new Uint8Array(5).fill(9));
    expect(downloaded(buffer, 5, bytes.byteLength).equals(bytes)).toBe(true);
    expect([...downloaded(buffer, 0, 5)]).toEqual([9, 9, 9, 9, 9]);
  });

  it("keeps the order of small uploads, device copies and readbacks", () => {
    using a = device.allocate(64);
    using b = device.allocate(64);
    const readbacks = [];
    for (let round = 0; round < 50; round++) {
      device.upload(a, 0, new Uint8Array(64).fill(round));
      device.copy(a, 0, b, 32, 32);
      readbacks.push(device.readback(b, 32, 16));
    }
    for (const [round, readback] of readbacks.entries())
      expect([...readback.wait()]).toEqual(Array.from({ length: 16 }, () => round));
    const last = device.readback(b, 32, 1);
    device.synchronize();
    expect(last.isReady).toBe(true);
    expect(last.wait()[0]).toBe(49);
  });

  it("takes empty buffers and ranges, and refuses ranges outside", () => {
    using empty = device.allocate(0);
    device.upload(empty, 0, new Uint8Array(0));
    device.download(empty, 0, new Uint8Array(0));
    expect(device.readback(empty, 0, 0).wait()).toHaveLength(0);
    using buffer = device.allocate(10);
    expect(() => device.upload(buffer, 8, new Uint8Array(3))).toThrow(ShapeError);
    expect(() => device.readback(buffer, -1, 3)).toThrow(ShapeError);
  });
});

describe("memory", () => {
  it("keeps blocks apart however they come and go", () => {
    const live: { buffer: DeviceBuffer; seed: number; length: number }[] = [];
    const sizes = noise(400, 3);
    for (let round = 0; round < 400; round++) {
      if (live.length > 24 || (live.length > 0 && sizes[round] < -0.4)) {
        const [victim] = live.splice(Math.floor(((sizes[round] + 1) / 2) * live.length), 1);
        const expected = bytesOf(victim.length, victim.seed);
        expect(downloaded(victim.buffer, 0, victim.length).equals(expected)).toBe(true);
        victim.buffer.dispose();
      } else {
        const length = Math.floor(2 ** (4 + 8.5 * (sizes[round] + 1)));
        const buffer = device.allocate(length);
        const marked = Math.min(length, 4096);
        device.upload(buffer, 0, bytesOf(marked, round));
        live.push({ buffer, seed: round, length: marked });
      }
    }
    for (const { buffer } of live) buffer.dispose();
    const before = device.memory().reservedBytes;
    device.trimMemory();
    expect(device.memory().reservedBytes).toBeLessThan(before);
  });

  it("says what to change when there is no room, and goes on", () => {
    const { totalBytes = 0 } = device.memory();
    expect(() => device.allocate(2 * totalBytes)).toThrow(OutOfMemoryError);
    expect(() => device.allocate(2 * totalBytes)).toThrow(
      /\[cuda\] expected room for .* \(.*micro-batch.*\)/,
    );
    using buffer = device.allocate(1 << 20);
    device.upload(buffer, 0, new Uint8Array([42]));
    expect(downloaded(buffer, 0, 1)[0]).toBe(42);
  });

  it("refuses disposed buffers and devices", () => {
    const buffer = device.allocate(8);
    buffer.dispose();
    buffer.dispose();
    expect(() => device.upload(buffer, 0, new Uint8Array(1))).toThrow(DisposedError);
    const other = createCudaDevice();
    other.dispose();
    expect(() => other.allocate(1)).toThrow(DisposedError);
  });
});

interface Product {
  m: number;
  n: number;
  k: number;
  transposeA?: number;
  transposeB?: number;
  /** Added to the natural row strides. */
  pad?: number;
  alpha?: number;
  beta?: number;
  bias?: FloatDtype;
  input: FloatDtype;
  output: FloatDtype;
  byteOffset?: number;
}

/** Runs a product and compares every element with float64, and the padding with what was there. */
function checkProduct(product: Product): void {
  const { m, n, k, transposeA = 0, transposeB = 0, pad = 0, alpha = 1, beta = 0, input, output } = product;
  const lda = (transposeA === 1 ? m : k) + pad;
  const ldb = (transposeB === 1 ? k : n) + pad;
  const ldc = n + pad;
  const { byteOffset = 0 } = product;
  const round = (dtype: FloatDtype, values: Float64Array) => decodeValues(dtype, encodeValues(dtype, values));
  const a = round(input, noise((transposeA === 1 ? k : m) * lda, 1));
  const b = round(input, noise((transposeB === 1 ? n : k) * ldb, 2));
  const c = round(output, noise(m * ldc, 3));
  const bias = product.bias && round(product.bias, noise(n, 4));
  const tensors = {
    a: tensorOf(input, a, byteOffset),
    b: tensorOf(input, b, byteOffset),
    c: tensorOf(output, beta === 0 ? c.map(() => NaN) : c, byteOffset),
    bias: bias && product.bias && tensorOf(product.bias, bias),
  };
  const got = ((): Float64Array => {
    try {
      device.run("matmul", { ...tensors, m, n, k, lda, ldb, ldc, transposeA, transposeB, alpha, beta });
      return valuesOf(tensors.c);
    } finally {
      for (const tensor of Object.values(tensors)) tensor?.buffer.dispose();
    }
  })();
  let worst = 0;
  for (let row = 0; row < m; row++) {
    for (let column = 0; column < n; column++) {
      let sum = 0;
      let size = 0;
      for (let inner = 0; inner < k; inner++) {
        const x = a[transposeA === 1 ? inner * lda + row : row * lda + inner];
        const y = b[transposeB === 1 ? column * ldb + inner : inner * ldb + column];
        sum += x * y;
        size += Math.abs(x * y);
      }
      const kept = beta === 0 ? 0 : beta * c[row * ldc + column];
      const expected = alpha * sum + kept + (bias?.[column] ?? 0);
      const tolerance =
        epsilons[output] * Math.abs(expected) +
        epsilons.f32 * (4 + Math.sqrt(k)) * (Math.abs(alpha) * size + Math.abs(kept) + 1);
      worst = Math.max(worst, Math.abs(got[row * ldc + column] - expected) / tolerance);
      if (!(worst <= 1)) expect.fail(`${row}, ${column}: ${got[row * ldc + column]}, not ${expected}`);
    }
    if (beta !== 0)
      for (let column = n; column < ldc; column++)
        expect(got[row * ldc + column]).toBe(c[row * ldc + column]);
  }
}

describe("matmul", () => {
  const dtypes = [
    ["f32", "f32"],
    ["bf16", "bf16"],
    ["bf16", "f32"],
  ] as const;
  it.for(dtypes)("equals float64 for %s to %s, in every transposition", ([input, output]) => {
    for (const transposeA of [0, 1])
      for (const transposeB of [0, 1]) {
        checkProduct({ m: 64, n: 128, k: 96, transposeA, transposeB, input, output });
        checkProduct({ m: 33, n: 17, k: 45, transposeA, transposeB, input, output, beta: 1 });
        checkProduct({
          m: 7,
          n: 40,
          k: 24,
          transposeA,
          transposeB,
          input,
          output,
          pad: 8,
          alpha: 0.5,
          beta: -2,
        });
      }
  });

  it.for(dtypes)("takes %s to %s of any shape, stride and place", ([input, output]) => {
    checkProduct({ m: 1, n: 1, k: 1, input, output });
    checkProduct({ m: 1, n: 257, k: 513, transposeB: 1, input, output });
    checkProduct({ m: 5, n: 3, k: 7, pad: 3, byteOffset: 4, input, output, beta: 0.25 });
    checkProduct({ m: 130, n: 66, k: 31, pad: 1, byteOffset: 20, transposeA: 1, input, output });
    checkProduct({ m: 3, n: 5, k: 0, input, output, beta: 2 });
    checkProduct({ m: 3, n: 5, k: 0, input, output, bias: output });
    checkProduct({ m: 0, n: 5, k: 4, input, output });
  });

  it.for(dtypes)("adds a bias to %s to %s, of c's dtype and of another", ([input, output]) => {
    checkProduct({ m: 32, n: 64, k: 64, input, output, bias: output });
    checkProduct({ m: 9, n: 21, k: 65, input, output, bias: output, beta: 1, transposeB: 1 });
    if (output === "f32") checkProduct({ m: 32, n: 64, k: 64, input, output, bias: "bf16", alpha: 2 });
  });

  it("gives the same bits for a shape that is timed, from the first call on", () => {
    const [m, n, k] = [512, 512, 512];
    const shape = { m, n, k, lda: k, ldb: n, ldc: n, transposeA: 0, transposeB: 0, alpha: 1, beta: 0 };
    const a = tensorOf("bf16", noise(m * k, 5));
    const b = tensorOf("bf16", noise(k * n, 6));
    const results = Array.from({ length: 3 }, () => {
      const c = tensorOf("bf16", new Float64Array(m * n));
      device.run("matmul", { a, b, c, ...shape });
      const bytes = downloaded(c.buffer);
      c.buffer.dispose();
      return bytes;
    });
    expect(results[1].equals(results[0])).toBe(true);
    expect(results[2].equals(results[0])).toBe(true);
    a.buffer.dispose();
    b.buffer.dispose();
  });

  it("does not touch an accumulating output while it times algorithms", () => {
    checkProduct({ m: 128, n: 1024, k: 1024, input: "bf16", output: "f32", beta: 1 });
  });
});

describe("capture", () => {
  const size = 256;
  const shape = {
    m: size,
    n: size,
    k: size,
    lda: size,
    ldb: size,
    ldc: size,
    transposeA: 0,
    transposeB: 0,
    alpha: 1 / 8,
    beta: 0,
  };
  const square = (tensor: TensorArgument, c: TensorArgument): void =>
    device.run("matmul", { a: tensor, b: tensor, c, ...shape });

  it("records without running, replays on new inputs, and holds what it allocated", () => {
    using owned = new DisposableStack();
    const x = tensorOf("bf16", new Float64Array(size * size));
    const y = tensorOf("bf16", new Float64Array(size * size).fill(3));
    owned.use(x.buffer);
    owned.use(y.buffer);
    using graph = device.capture(() => {
      const middle = { buffer: device.allocate(size * size * 2), byteOffset: 0, dtype: "bf16" as const };
      square(x, middle);
      square(middle, y);
      middle.buffer.dispose();
    });
    expect(valuesOf(y).every((value) => value === 3)).toBe(true);
    for (const seed of [1, 2, 3]) {
      device.upload(x.buffer, 0, encodeValues("bf16", noise(size * size, seed)));
      // A buffer of the same size as the graph's own: it must not be the same memory.
      const bystander = tensorOf("bf16", new Float64Array(size * size).fill(7));
      graph.replay();
      const replayed = downloaded(y.buffer);
      expect(valuesOf(bystander).every((value) => value === 7)).toBe(true);
      square(x, bystander);
      const eager = tensorOf("bf16", new Float64Array(size * size));
      square(bystander, eager);
      expect(downloaded(eager.buffer).equals(replayed)).toBe(true);
      bystander.buffer.dispose();
      eager.buffer.dispose();
    }
  });

  it("refuses what cannot be recorded, and the device goes on", () => {
    using buffer = device.allocate(8);
    expect(() => device.capture(() => device.upload(buffer, 0, new Uint8Array(8)))).toThrow(DeviceError);
    expect(() => device.capture(() => device.synchronize())).toThrow(DeviceError);
    const graph = device.capture(() => {});
    graph.replay();
    graph.dispose();
    expect(() => graph.replay()).toThrow(DisposedError);
    device.upload(buffer, 0, new Uint8Array(8).fill(1));
    expect(downloaded(buffer)[7]).toBe(1);
  });

  it("gives the graph's memory back with the graph", () => {
    device.trimMemory();
    const before = device.memory().reservedBytes;
    const graph = device.capture(() => {
      device.allocate(300 << 20).dispose();
    });
    device.trimMemory();
    expect(device.memory().reservedBytes).toBeGreaterThanOrEqual(before + (300 << 20));
    graph.dispose();
    device.trimMemory();
    expect(device.memory().reservedBytes).toBeLessThan(before + (300 << 20));
  });
});

it("is bit-identical from device to device in deterministic mode", () => {
  const [m, n, k] = [64, 4096, 4096];
  const shape = { m, n, k, lda: k, ldb: k, ldc: n, transposeA: 0, transposeB: 1, alpha: 1, beta: 0 };
  const outputs = [0, 1].map(() => {
    const own = createCudaDevice({ deterministic: true });
    const make = (length: number, seed: number): TensorArgument => {
      const buffer = own.allocate(length * dtypeBytes("bf16"));
      own.upload(buffer, 0, encodeValues("bf16", noise(length, seed)));
      return { buffer, byteOffset: 0, dtype: "bf16" };
    };
    const c = make(m * n, 3);
    own.run("matmul", { a: make(m * k, 1), b: make(n * k, 2), c, ...shape });
    const bytes = Buffer.alloc(m * n * 2);
    own.download(c.buffer, 0, bytes);
    own.dispose();
    return bytes;
  });
  expect(outputs[0].equals(outputs[1])).toBe(true);
});
