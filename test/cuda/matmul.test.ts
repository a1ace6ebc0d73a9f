/**
 * Which products go through an f32 accumulator, and that those round once; and products of codes that the library has no kernels for: the
 * backend's matmul over a library of products that are computed here, with the kernels round them on the emulator.
 */
import { spawnSync } from "node:child_process";
import { beforeEach, describe, expect, it, type TestContext } from "vitest";
import { decodeValues, encodeValues, roundTo } from "../../src/base/index.ts";
import type { LtProblem } from "../../src/device/cuda/cublaslt.ts";
import { accumulatedRows, needsAccumulator } from "../../src/device/cuda/launch/product.ts";
import { CudaMatmul } from "../../src/device/cuda/matmul.ts";
import type { ProductLibrary } from "../../src/device/cuda/productPlans.ts";
import type { CudaMemory } from "../../src/device/cuda/memory.ts";
import type { CudaSession } from "../../src/device/cuda/session.ts";
import { viewMemory } from "../../src/device/ffi.ts";
import type { DeviceGraph, OpArguments, OpName, TensorArgument } from "../../src/device/index.ts";
import { numElementsOf } from "../conformance/case.ts";
import { casesOf } from "../conformance/cases/index.ts";
import { runCase } from "../conformance/runner.ts";
import { EmulatedCudaDevice } from "./emulator/device.ts";

const algorithmScratchBytes = 1000;

/** A library that computes on the host, and rounds bf16 sums twice: the product, and what is added to it. */
class HostProducts implements ProductLibrary {
  readonly version = 1;
  readonly runs: { problem: LtProblem; beta: number }[] = [];
  readonly #problems: LtProblem[] = [];

  describe(problem: LtProblem) {
    this.#problems.push(problem);
    const operation = this.#problems.length - 1;
    return { operation, a: 0, b: 0, d: 0 };
  }

  setBias(): void {
    throw new Error("expected no bias inside the library's product");
  }

  setScales(): void {
    throw new Error("expected no codes in the library's product");
  }

  algorithms() {
    return [{ bytes: new Uint8Array(64), workspaceBytes: algorithmScratchBytes }];
  }

  checkAlgorithm(): undefined {}

  run(
    { operation }: { operation: number },
    operands: Parameters<ProductLibrary["run"]>[1],
    { workspace, workspaceBytes }: Parameters<ProductLibrary["run"]>[2],
  ): void {
    const problem = this.#problems[operation];
    const { rows, columns, inner, transposeA, transposeB, strideA, strideB, strideD, output } = problem;
    const [alpha, beta] = new Float32Array(viewMemory(operands.scalars, 8));
    this.runs.push({ problem, beta });
    new Uint8Array(viewMemory(workspace, workspaceBytes)).fill(0xee);
    const read = (address: number, length: number): Float64Array =>
      decodeValues("bf16", new Uint8Array(viewMemory(address, 2 * length)).slice());
    const left = read(operands.a, (transposeA ? rows : inner) * strideA);
    // The last rows of a transposed matrix may end before its stride does.
    const right = read(operands.b, transposeB ? (inner - 1) * strideB + columns : columns * strideB);
    const output32 =
      output === "f32" ? new Float32Array(viewMemory(operands.d, 4 * columns * strideD)) : undefined;
    for (let column = 0; column < columns; column++)
      for (let row = 0; row < rows; row++) {
        let sum = 0;
        for (let i = 0; i < inner; i++)
          sum +=
            left[transposeA ? row * strideA + i : i * strideA + row] *
            right[transposeB ? i * strideB + column : column * strideB + i];
        const index = column * strideD + row;
        if (output32 !== undefined) output32[index] = alpha * sum;
        else {
          const kept = beta === 0 ? 0 : beta * read(operands.d + 2 * index, 1)[0];
          const value = roundTo("bf16", roundTo("bf16", alpha * sum) + kept);
          new Uint8Array(viewMemory(operands.d + 2 * index, 2)).set(encodeValues("bf16", [value]));
        }
      }
  }

  destroy(): void {}

  dispose(): void {}
}

/** The emulator with products of codes by the backend's class, over a library that multiplies no codes. */
class WithHostProducts extends EmulatedCudaDevice {
  readonly library = new HostProducts();
  readonly #matmul = openMatmul(this.library);

  override run<Name extends OpName>(name: Name, args: OpArguments<Name>): void {
    if (name === "matmulScaled") this.#matmul.runScaled(this.context, args as OpArguments<"matmulScaled">);
    else super.run(name, args);
  }

  /** Nothing records what the host computes: a replay does all again. */
  override capture(record: () => void): DeviceGraph {
    return { replay: record, dispose: () => {}, [Symbol.dispose]: () => {} };
  }
}

function openMatmul(library: ProductLibrary): CudaMatmul {
  const session = { name: "none", driver: { majors: [] } } as unknown as CudaSession;
  return new CudaMatmul(session, {} as unknown as CudaMemory, { allowsTf32: false, library });
}

interface Case {
  m: number;
  n: number;
  k: number;
  transposeA?: 0 | 1;
  transposeB?: 0 | 1;
  beta: number;
  hasBias?: boolean;
  padding?: number;
}

/** Runs a product of random bf16 numbers; gives what was stored, what one rounding gives, and the runs of the library. */
function multiply(device: EmulatedCudaDevice, shape: Case) {
  const { m, n, k, transposeA = 0, transposeB = 0, beta, hasBias = false, padding = 0 } = shape;
  let state = 1;
  const made: TensorArgument[] = [];
  const random = (length: number): { tensor: TensorArgument; values: Float64Array } => {
    const noise = Array.from({ length }, () => (state = (state * 48_271) % 2_147_483_647) / 2 ** 30 - 1);
    const bytes = encodeValues("bf16", noise);
    const buffer = device.allocate(bytes.byteLength);
    device.upload(buffer, 0, bytes);
    const tensor: TensorArgument = { buffer, byteOffset: 0, dtype: "bf16" };
    made.push(tensor);
    return { tensor, values: decodeValues("bf16", bytes) };
  };
  const [a, b, c, bias] = [random(m * k), random(k * n), random(m * (n + padding)), random(n)];
  const lda = transposeA ? m : k;
  const ldb = transposeB ? k : n;
  const integers = { m, n, k, lda, ldb, ldc: n + padding, transposeA, transposeB };
  const tensors = { a: a.tensor, b: b.tensor, c: c.tensor, ...(hasBias && { bias: bias.tensor }) };
  const args: OpArguments<"matmul"> = { ...tensors, ...integers, alpha: 0.75, beta };
  const library = new HostProducts();
  const matmul = openMatmul(library);
  matmul.run(device.context, args);
  matmul.dispose();
  const stored = new Uint8Array(m * (n + padding) * 2);
  device.download(c.tensor.buffer, 0, stored);
  const expected = c.values.map((kept, index) => {
    const [row, column] = [Math.floor(index / (n + padding)), index % (n + padding)];
    if (column >= n) return kept;
    let sum = 0;
    for (let i = 0; i < k; i++)
      sum +=
        a.values[transposeA ? i * lda + row : row * lda + i] *
        b.values[transposeB ? column * ldb + i : i * ldb + column];
    // As f32 arithmetic has it, with one rounding to bf16 at the end.
    let value = Math.fround(0.75 * sum);
    value = Math.fround(value + Math.fround(beta * kept));
    if (hasBias) value = Math.fround(value + bias.values[column]);
    return roundTo("bf16", value);
  });
  for (const { buffer } of made) buffer.dispose();
  return { stored: decodeValues("bf16", stored), expected, runs: library.runs };
}

describe("which products are accumulated in f32", () => {
  const c = { dtype: "bf16" } as const;
  it("are bf16 sums of shapes that are not whole multiples of 64", () => {
    const even = { c, m: 128, n: 64, k: 192, beta: 1 };
    expect(needsAccumulator(even)).toBe(false);
    expect(needsAccumulator({ ...even, m: 100 })).toBe(true);
    expect(needsAccumulator({ ...even, n: 65 })).toBe(true);
    expect(needsAccumulator({ ...even, k: 24 })).toBe(true);
  });
  it("are none that only store, and none of f32", () => {
    expect(needsAccumulator({ c, m: 3, n: 5, k: 7, beta: 0 })).toBe(false);
    expect(needsAccumulator({ c: { dtype: "f32" }, m: 3, n: 5, k: 7, beta: 1 })).toBe(false);
  });
  it("come in whole tiles of rows whose f32 form stays below 32 MiB, within a grid's rows", () => {
    expect(accumulatedRows(100, 4096)).toBe(100);
    expect(accumulatedRows(4095, 4096)).toBe(2048);
    expect(accumulatedRows(4095, 5000)).toBe(1664);
    expect(accumulatedRows(1000, 256_000)).toBe(64);
    expect(accumulatedRows(1e6, 1)).toBe(65_472);
  });
});

/** Skips where kernels cannot be emulated. */
function needsEmulator(context: TestContext): void {
  if (spawnSync("g++", ["--version"]).status !== 0) context.skip("the kernel emulator needs g++");
}

describe("products of codes without kernels of the library", () => {
  beforeEach(needsEmulator);

  it("are the f32 products of their numbers in bf16, scaled and rounded once", () => {
    using device = new WithHostProducts();
    // Smaller ones than the kernel takes that streams, which is not emulated.
    const cases = casesOf("matmulScaled").filter((each) => numElementsOf(each.build()) < 100_000);
    const results = cases.map((each) => runCase(device, each));
    expect(results.filter(({ status }) => status !== "passed")).toEqual([]);
    expect(device.library.runs.length).toBeGreaterThan(10);
    expect(device.library.runs.every(({ problem }) => problem.input === "bf16")).toBe(true);
    expect(device.memory().liveBytes).toBe(0);
  });
});

describe("bf16 products that add to c", () => {
  beforeEach(needsEmulator);

  it.each<Case>([
    { m: 33, n: 17, k: 40, beta: 1, hasBias: true },
    { m: 64, n: 64, k: 24, beta: 1, transposeA: 1 },
    { m: 20, n: 65, k: 64, beta: -0.5, transposeB: 1, padding: 3 },
    { m: 7, n: 300, k: 9, beta: 1, transposeA: 1, transposeB: 1, hasBias: true },
  ])("round once in odd shapes: %o", (shape) => {
    using device = new EmulatedCudaDevice();
    const { stored, expected, runs } = multiply(device, shape);
    expect(runs).toMatchObject([{ beta: 0, problem: { output: "f32", hasBias: false, strideD: shape.n } }]);
    expect(device.context.numLaunches.get("add_product")).toBe(1);
    expect([...stored]).toEqual([...expected]);
    expect(device.memory().liveBytes).toBe(0);
  });

  it("go in parts where the product is large, each part from its own rows", () => {
    for (const transposeA of [0, 1] as const) {
      using device = new EmulatedCudaDevice();
      const { stored, expected, runs } = multiply(device, { m: 65_500, n: 1, k: 2, beta: 1, transposeA });
      expect(runs.map(({ problem }) => problem.columns)).toEqual([65_472, 28]);
      expect(Buffer.from(stored.buffer).equals(Buffer.from(expected.buffer))).toBe(true);
    }
  });

  it("are the library's alone in whole multiples of 64, or where nothing is added", () => {
    using device = new EmulatedCudaDevice();
    for (const shape of [
      { m: 64, n: 64, k: 64, beta: 1 },
      { m: 5, n: 6, k: 7, beta: 0 },
    ]) {
      const { runs } = multiply(device, shape);
      expect(runs).toMatchObject([{ beta: shape.beta, problem: { output: "bf16" } }]);
    }
    expect(device.context.numLaunches.size).toBe(0);
  });
});
