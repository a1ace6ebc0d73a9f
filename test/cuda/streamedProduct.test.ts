/** Products of a few rows against float64 on the host, and their bits from run to run. Skipped without a GPU. */
import { beforeEach, expect, it } from "vitest";
import { decodeValues, DeviceError, encodeValues, epsilons } from "../../src/base/index.ts";
import type { CudaDevice } from "../../src/device/cuda/index.ts";
import {
  launchStreamedProduct,
  launchStreamedScaledProduct,
  type StreamedForm,
} from "../../src/device/cuda/launch/streamedProduct.ts";
import { e4m3ValueOf } from "../../src/device/reference/float8.ts";
import type { OpArguments, TensorArgument } from "../../src/device/index.ts";
import { useCard } from "./card.ts";

let device: CudaDevice;
const card = useCard(({ launchContext: { computeCapability } }) =>
  computeCapability === 90 ? undefined : `needs compute capability 9.0, not ${computeCapability / 10}`,
);
beforeEach(() => {
  device = card();
});

interface Shape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** Columns of each row that are no part of the matrices. */
  readonly padding?: number;
  /** As the launcher chooses where absent. */
  readonly form?: StreamedForm;
}

/** Numbers in [-1, 1) from a seed, rounded to bf16. */
function noise(length: number, seed: number): { bytes: Uint8Array; values: Float64Array } {
  const values = new Float32Array(length);
  let state = (seed * 2_654_435_761) >>> 0;
  for (let index = 0; index < length; index++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    values[index] = state / 2 ** 31 - 1;
  }
  const bytes = encodeValues("bf16", values);
  return { bytes, values: decodeValues("bf16", bytes) };
}

function uploaded(bytes: Uint8Array, dtype: "f32" | "bf16" | "u8"): TensorArgument {
  const buffer = device.allocate(bytes.byteLength);
  device.upload(buffer, 0, bytes);
  return { buffer, byteOffset: 0, dtype };
}

function bytesOf(tensor: TensorArgument): Buffer {
  const bytes = Buffer.alloc(tensor.buffer.byteLength);
  device.download(tensor.buffer, 0, bytes);
  return bytes;
}

/** Queues the product, also one that the device would leave to the library. */
function launch(args: OpArguments<"matmul">, form?: StreamedForm): void {
  if (!launchStreamedProduct(device.launchContext, args, form))
    throw new DeviceError("cuda", "expected the kernel to apply, got a refusal");
}

/** Runs a product into `again` from a graph, twice, and compares its bytes. */
function expectSameFromGraph(first: Buffer, again: TensorArgument, run: () => void): void {
  using graph = device.capture(() => {
    for (let repeat = 0; repeat < 3; repeat++) run();
  });
  for (let replay = 0; replay < 2; replay++) {
    graph.replay();
    expect(bytesOf(again).equals(first)).toBe(true);
  }
}

/** The largest distance from the expected results in units of their bounds, over some columns of each row; what lies between rows must be untouched. */
function worstOf(
  { m, n, k, padding }: Required<Omit<Shape, "form">>,
  y: ArrayLike<number>,
  expected: (row: number, column: number) => { exact: number; bound: number },
): number {
  const stride = Math.max(1, Math.floor((m * n * k) / 2e7));
  let worst = 0;
  for (let row = 0; row < m; row++) {
    for (let column = row % stride; column < n; column += stride) {
      const { exact, bound } = expected(row, column);
      worst = Math.max(worst, Math.abs(y[row * (n + padding) + column] - exact) / bound);
    }
    for (let column = n; column < n + padding; column++) expect(y[row * (n + padding) + column]).toBe(77);
  }
  return worst;
}

/** Runs the product eagerly and twice from a graph, and compares some columns of each row with float64. */
function check({ m, n, k, padding = 0, form }: Shape, dtype: "f32" | "bf16"): void {
  const ld = k + padding;
  const x = noise(m * ld, 1);
  const w = noise(n * ld, 2);
  const untouched = encodeValues(dtype, new Float32Array(m * (n + padding)).fill(77));
  const [a, b] = [uploaded(x.bytes, "bf16"), uploaded(w.bytes, "bf16")];
  const [c, again] = [uploaded(untouched, dtype), uploaded(untouched, dtype)];
  const integers = { m, n, k, lda: ld, ldb: ld, ldc: n + padding, transposeA: 0, transposeB: 1 };
  const args: OpArguments<"matmul"> = { a, b, c, ...integers, alpha: 1, beta: 0 };
  launch(args, form);
  const first = bytesOf(c);
  expectSameFromGraph(first, again, () => launch({ ...args, c: again }, form));
  const worst = worstOf({ m, n, k, padding }, decodeValues(dtype, first), (row, column) => {
    let exact = 0;
    for (let i = 0; i < k; i++) exact += x.values[row * ld + i] * w.values[column * ld + i];
    // Products of numbers in [-1, 1) add up to about sqrt(k) / 3. The tensor cores cut a sum off at each of k / 16 steps instead of
    // rounding it, so errors grow with k: measured up to 0.1 units of sqrt(k) a step.
    return { exact, bound: epsilons[dtype] * Math.abs(exact) + (8 + k / 64) * epsilons.f32 * Math.sqrt(k) };
  });
  expect(worst, `m ${m}, n ${n}, k ${k}, ${dtype}`).toBeLessThan(1);
  for (const tensor of [a, b, c, again]) tensor.buffer.dispose();
}

it("multiplies small matrices of odd shapes", () => {
  for (const m of [1, 3, 7, 8, 9, 16, 33, 64])
    for (const [n, k] of [
      [16, 64],
      [1, 320],
      [272, 256],
      [1000, 1088],
      [33, 4160],
    ])
      for (const dtype of ["f32", "bf16"] as const) check({ m, n, k, padding: 8 * (m % 2) }, dtype);
});

it("multiplies in every form", () => {
  for (const m of [2, 40])
    for (const tileRows of [8, 40, 64, 96, 128])
      for (const numSplits of [1, 2, 4]) check({ m, n: 328, k: 2112, form: { tileRows, numSplits } }, "bf16");
});

it("multiplies weights of a model", { timeout: 60_000 }, () => {
  check({ m: 1, n: 12_288, k: 4096 }, "bf16");
  check({ m: 5, n: 4096, k: 4096 }, "bf16");
  check({ m: 3, n: 4096, k: 16_384 }, "f32");
  check({ m: 16, n: 4096, k: 16_384 }, "bf16");
  check({ m: 64, n: 16_384, k: 4096 }, "bf16");
  check({ m: 7, n: 4099, k: 4160 }, "bf16");
  check({ m: 12, n: 64_000, k: 512 }, "f32");
});

it("gives a row the same result whatever rows stand beside it", () => {
  const [n, k] = [640, 2048];
  const x = noise(64 * k, 1);
  const w = uploaded(noise(n * k, 2).bytes, "bf16");
  const results = [1, 5, 16, 64].map((m) => {
    const a = uploaded(x.bytes.subarray(0, m * k * 2), "bf16");
    const c = uploaded(encodeValues("bf16", new Float32Array(m * n)), "bf16");
    const shape = { m, n, k, lda: k, ldb: k, ldc: n, transposeA: 0, transposeB: 1, alpha: 1, beta: 0 };
    launch({ a, b: w, c, ...shape });
    const row = bytesOf(c).subarray(0, n * 2);
    for (const tensor of [a, c]) tensor.buffer.dispose();
    return row;
  });
  for (const row of results) expect(row.equals(results[0])).toBe(true);
  w.buffer.dispose();
});

it("waits for a weight that the graph itself writes", () => {
  const [m, n, k] = [2, 4096, 4096];
  const x = uploaded(noise(m * k, 1).bytes, "bf16");
  const values = noise(n * k, 2);
  const source = uploaded(values.bytes, "bf16");
  const weight = uploaded(encodeValues("bf16", new Float32Array(n * k)), "bf16");
  const [c, expected] = [0, 1].map(() => uploaded(encodeValues("bf16", new Float32Array(m * n)), "bf16"));
  const shape = { m, n, k, lda: k, ldb: k, ldc: n, transposeA: 0, transposeB: 1, alpha: 1, beta: 0 };
  launch({ a: x, b: source, c: expected, ...shape });
  const numElements = n * k;
  using graph = device.capture(() => {
    device.run("fill", { y: weight, numElements, value: 3 });
    device.run("convert", { x: source, y: weight, numElements });
    launch({ a: x, b: weight, c, ...shape });
  });
  for (let replay = 0; replay < 3; replay++) graph.replay();
  expect(bytesOf(c).equals(bytesOf(expected))).toBe(true);
  for (const tensor of [x, source, weight, c, expected]) tensor.buffer.dispose();
});

it("lets no NaN of a row into another, and none get lost", () => {
  const [m, n, k] = [3, 48, 4096];
  const values = new Float32Array(m * k).fill(1);
  values[k + 17] = Number.NaN;
  const a = uploaded(encodeValues("bf16", values), "bf16");
  const b = uploaded(encodeValues("bf16", new Float32Array(n * k).fill(0.5)), "bf16");
  const c = uploaded(encodeValues("f32", new Float32Array(m * n)), "f32");
  const shape = { m, n, k, lda: k, ldb: k, ldc: n, transposeA: 0, transposeB: 1, alpha: 1, beta: 0 };
  launch({ a, b, c, ...shape });
  const y = decodeValues("f32", bytesOf(c));
  expect([...y]).toEqual(
    Array.from({ length: m * n }, (_, i) => (Math.floor(i / n) === 1 ? Number.NaN : 2048)),
  );
  for (const tensor of [a, b, c]) tensor.buffer.dispose();
});

/** Codes of whole numbers from -4 to 4, whose sums are exact whatever adds them up. */
function wholeCodes(length: number, seed: number): { bytes: Uint8Array; values: Float64Array } {
  const table = [0x00, 0x38, 0x40, 0x44, 0x48, 0xb8, 0xc0, 0xc4, 0xc8];
  const bytes = Uint8Array.from(noise(length, seed).values, (value) => table[Math.floor((value + 1) * 4.5)]);
  return { bytes, values: Float64Array.from(bytes, e4m3ValueOf) };
}

/** As `check`, for codes with scales and a bias: results are those of float64 but for the rounding of three operations. */
function checkScaled({ m, n, k, padding = 0, form }: Shape, dtype: "f32" | "bf16"): void {
  const [x, w] = [wholeCodes(m * k, 1), wholeCodes(n * k, 2)];
  const scalesOf = (length: number, seed: number) => {
    const values = Float32Array.from(noise(length, seed).values, (value) => 0.5 + value / 4);
    return { values, tensor: uploaded(encodeValues("f32", values), "f32") };
  };
  const [aScales, bScales, shift] = [scalesOf(m, 3), scalesOf(n, 4), scalesOf(n, 5)];
  const [a, b] = [uploaded(x.bytes, "u8"), uploaded(w.bytes, "u8")];
  const untouched = encodeValues(dtype, new Float32Array(m * (n + padding)).fill(77));
  const [c, again] = [uploaded(untouched, dtype), uploaded(untouched, dtype)];
  const scales = { aScales: aScales.tensor, bScales: bScales.tensor, bias: shift.tensor };
  const args: OpArguments<"matmulScaled"> = { a, b, c, ...scales, m, n, k, ldc: n + padding };
  const run = (into: TensorArgument): void => {
    if (!launchStreamedScaledProduct(device.launchContext, { ...args, c: into }, form))
      throw new DeviceError("cuda", "expected the kernel to apply, got a refusal");
  };
  run(c);
  const first = bytesOf(c);
  expectSameFromGraph(first, again, () => run(again));
  const worst = worstOf({ m, n, k, padding }, decodeValues(dtype, first), (row, column) => {
    let sum = 0;
    for (let i = 0; i < k; i++) sum += x.values[row * k + i] * w.values[column * k + i];
    const scaled = sum * aScales.values[row] * bScales.values[column];
    const exact = scaled + shift.values[column];
    return { exact, bound: epsilons[dtype] * Math.abs(exact) + 2 * epsilons.f32 * (Math.abs(scaled) + 1) };
  });
  expect(worst, `codes, m ${m}, n ${n}, k ${k}, ${dtype}`).toBeLessThan(1);
  for (const tensor of [a, b, c, again, aScales.tensor, bScales.tensor, shift.tensor])
    tensor.buffer.dispose();
}

it("multiplies codes of odd shapes", () => {
  for (const m of [1, 7, 8, 9, 17, 33, 64])
    for (const [n, k] of [
      [16, 128],
      [1, 384],
      [272, 256],
      [1000, 1152],
      [33, 4224],
    ])
      for (const dtype of ["f32", "bf16"] as const) checkScaled({ m, n, k, padding: 8 * (m % 2) }, dtype);
});

it("multiplies codes in every form", () => {
  for (const m of [2, 40])
    for (const tileRows of [8, 40, 64, 96, 128])
      for (const numSplits of [1, 2, 4])
        checkScaled({ m, n: 328, k: 4224, form: { tileRows, numSplits } }, "bf16");
});

it("multiplies codes of a model", { timeout: 60_000 }, () => {
  checkScaled({ m: 1, n: 12_288, k: 4096 }, "bf16");
  checkScaled({ m: 5, n: 4096, k: 4096 }, "bf16");
  checkScaled({ m: 3, n: 4096, k: 16_384 }, "f32");
  checkScaled({ m: 64, n: 16_384, k: 4096 }, "bf16");
});

it("gives a row of codes the same result whatever rows stand beside it", () => {
  const [n, k] = [640, 2048];
  const codes = Uint8Array.from(noise(64 * k, 1).values, (value) => Math.floor((value + 1) * 63));
  const w = uploaded(
    Uint8Array.from(noise(n * k, 2).values, (value) => Math.floor((value + 1) * 63)),
    "u8",
  );
  const bScales = uploaded(encodeValues("f32", new Float32Array(n).fill(0.01)), "f32");
  const results = [1, 5, 16, 64].map((m) => {
    const a = uploaded(codes.subarray(0, m * k), "u8");
    const aScales = uploaded(encodeValues("f32", new Float32Array(m).fill(0.01)), "f32");
    const c = uploaded(encodeValues("f32", new Float32Array(m * n)), "f32");
    const args = { a, aScales, b: w, bScales, bias: undefined, c, m, n, k, ldc: n };
    expect(launchStreamedScaledProduct(device.launchContext, args)).toBe(true);
    const row = bytesOf(c).subarray(0, n * 4);
    for (const tensor of [a, aScales, c]) tensor.buffer.dispose();
    return row;
  });
  for (const row of results) expect(row.equals(results[0])).toBe(true);
  for (const tensor of [w, bScales]) tensor.buffer.dispose();
});

it("keeps sums of codes beyond what the tensor cores keep", () => {
  // 2^16 and then ones, which a sum of 14 bits would not notice: 448 * 448 in one stage, the ones in the others.
  const [m, n, k] = [2, 64, 8192];
  const ones = new Uint8Array(k).fill(0x38);
  ones[0] = 0x7e;
  const a = uploaded(Buffer.concat([ones, ones]), "u8");
  const b = uploaded(Buffer.concat(Array.from({ length: n }, () => ones)), "u8");
  const [aScales, bScales] = [m, n].map((length) =>
    uploaded(encodeValues("f32", new Float32Array(length).fill(1)), "f32"),
  );
  const c = uploaded(encodeValues("f32", new Float32Array(m * n)), "f32");
  const args = { a, aScales, b, bScales, bias: undefined, c, m, n, k, ldc: n };
  expect(launchStreamedScaledProduct(device.launchContext, args)).toBe(true);
  const expected = 448 * 448 + (k - 1);
  // The first stage of 256 may lose its ones beside 448 * 448.
  for (const value of decodeValues("f32", bytesOf(c))) {
    expect(value).toBeGreaterThanOrEqual(expected - 255);
    expect(value).toBeLessThanOrEqual(expected);
  }
  for (const tensor of [a, b, c, aScales, bScales]) tensor.buffer.dispose();
});
