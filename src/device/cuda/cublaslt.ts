/**
 * cuBLASLt: typed bindings, and descriptors and algorithm queries for one kind of product. Column-major, as the library is;
 * productPlans.ts does the turning. Knows nothing of tensors, caches or timing.
 * Source: cublasLt.h and cublas_api.h.
 */
import { invariant } from "../../base/index.ts";
import { openCudaLibrary } from "./libraries.ts";
import { bindFunctions, NativeWords, type Functions } from "./native.ts";
import { libraryError } from "./status.ts";

const table = {
  cublasLtCreate: ["pointer"],
  cublasLtDestroy: ["pointer"],
  cublasLtMatrixLayoutCreate: ["pointer", "int", "uint64", "uint64", "int64"],
  cublasLtMatrixLayoutDestroy: ["pointer"],
  cublasLtMatmulDescCreate: ["pointer", "int", "int"],
  cublasLtMatmulDescDestroy: ["pointer"],
  cublasLtMatmulDescSetAttribute: ["pointer", "int", "pointer", "size"],
  cublasLtMatmulPreferenceCreate: ["pointer"],
  cublasLtMatmulPreferenceDestroy: ["pointer"],
  cublasLtMatmulPreferenceSetAttribute: ["pointer", "int", "pointer", "size"],
  cublasLtMatmulAlgoGetHeuristic: [
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "int",
    "pointer",
    "pointer",
  ],
  cublasLtMatmulAlgoCheck: [
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
  ],
  cublasLtMatmul: [
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "size",
    "pointer",
  ],
} as const;
export const cublasLtTable = table;

export const dataTypes = { f32: 0, f16: 2, bf16: 14, e4m3: 28 } as const;
export type LtDtype = keyof typeof dataTypes;
const computeTypes = { f32: 68, tf32: 77 } as const;
const matmulAttributes = {
  transposeA: 3,
  transposeB: 4,
  epilogue: 7,
  biasPointer: 8,
  scalePointerA: 17,
  scalePointerB: 18,
  biasType: 26,
  scaleModeA: 31,
  scaleModeB: 32,
} as const;
/** A scale for each row of op(A) and each column of op(B), f32. */
const scaleVectors = 3;
/** The first library with them. */
export const scaleVectorsVersion = 120_900;
const preferences = {
  maxWorkspaceBytes: 1,
  reductionSchemes: 3,
  minAlignmentA: 5,
  minAlignmentB: 6,
  minAlignmentC: 7,
  minAlignmentD: 8,
} as const;
const epilogueBias = 4;
/** Split-K through scratch memory, in a fixed order and in the compute type: sums in a bf16 output lose what cancels. */
const computeTypeReduction = 2;
export const algorithmBytes = 64;
const resultWords = 12;

/** One column-major product D = alpha op(A) op(B) + beta D (+ bias over rows of D); A is (rows, inner) after op. */
export interface LtProblem {
  readonly rows: number;
  readonly columns: number;
  readonly inner: number;
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  readonly strideA: number;
  readonly strideB: number;
  readonly strideD: number;
  /** Factors of e4m3 have scales: A (rows), B (columns). */
  readonly input: LtDtype;
  readonly output: LtDtype;
  readonly hasBias: boolean;
  /** What the addresses of A, B and D are multiples of, in bytes. */
  readonly alignments: readonly [a: number, b: number, d: number];
}

/** Native descriptors of a problem. */
export interface LtDescriptors {
  readonly operation: number;
  readonly a: number;
  readonly b: number;
  readonly d: number;
}

export interface LtAlgorithm {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly workspaceBytes: number;
}

export class CublasLt {
  readonly libraryPath: string;
  /** major * 10000 + minor * 100 + patch. */
  readonly version: number;
  readonly functions: Functions<typeof table>;
  readonly #handle: number;
  readonly #words = new NativeWords(2);

  /** A handle for the context that is current. Throws DeviceError naming the package that brings cuBLASLt. */
  constructor(majors: readonly number[]) {
    const library = openCudaLibrary("cublasLt", majors);
    this.libraryPath = library.path;
    this.functions = bindFunctions(library.native, table, "install cuBLAS 12 or later");
    this.version = library.native.define("cublasLtGetVersion", "uint64", [])();
    this.check("cublasLtCreate", this.functions.cublasLtCreate(this.#words.address));
    this.#handle = this.#words.word(0);
  }

  check(call: string, status: number): void {
    if (status !== 0) throw libraryError("cublasLt", call, status);
  }

  describe(problem: LtProblem, options: { allowsTf32: boolean }): LtDescriptors {
    const { rows, columns, inner, transposeA, transposeB } = problem;
    const compute = problem.input === "f32" && options.allowsTf32 ? computeTypes.tf32 : computeTypes.f32;
    const words = this.#words;
    this.check(
      "cublasLtMatmulDescCreate",
      this.functions.cublasLtMatmulDescCreate(words.address, compute, dataTypes.f32),
    );
    const operation = words.word(0);
    this.#setInt(operation, matmulAttributes.transposeA, transposeA ? 1 : 0);
    this.#setInt(operation, matmulAttributes.transposeB, transposeB ? 1 : 0);
    if (problem.hasBias) {
      this.#setInt(operation, matmulAttributes.epilogue, epilogueBias);
      this.#setInt(operation, matmulAttributes.biasType, dataTypes[problem.output]);
    }
    if (problem.input === "e4m3") {
      this.#setInt(operation, matmulAttributes.scaleModeA, scaleVectors);
      this.#setInt(operation, matmulAttributes.scaleModeB, scaleVectors);
    }
    const input = dataTypes[problem.input];
    return {
      operation,
      a: this.#layout(input, transposeA ? [inner, rows] : [rows, inner], problem.strideA),
      b: this.#layout(input, transposeB ? [columns, inner] : [inner, columns], problem.strideB),
      d: this.#layout(dataTypes[problem.output], [rows, columns], problem.strideD),
    };
  }

  setBias({ operation }: LtDescriptors, address: number): void {
    this.#setPointer(operation, matmulAttributes.biasPointer, address);
  }

  /** Addresses of the scales of A (rows) and B (columns). */
  setScales({ operation }: LtDescriptors, { a, b }: { readonly a: number; readonly b: number }): void {
    this.#setPointer(operation, matmulAttributes.scalePointerA, a);
    this.#setPointer(operation, matmulAttributes.scalePointerB, b);
  }

  /** Up to `count` algorithms, the one expected to be fastest first; empty where the library has none. */
  algorithms(
    problem: LtProblem,
    descriptors: LtDescriptors,
    options: { count: number; workspaceBytes: number; isDeterministic: boolean },
  ): LtAlgorithm[] {
    const { functions } = this;
    const words = this.#words;
    this.check("cublasLtMatmulPreferenceCreate", functions.cublasLtMatmulPreferenceCreate(words.address));
    const preference = words.word(0);
    const set = (attribute: number, value: number, byteLength: number): void => {
      words.setWord(0, value);
      const status = functions.cublasLtMatmulPreferenceSetAttribute(
        preference,
        attribute,
        words.address,
        byteLength,
      );
      this.check("cublasLtMatmulPreferenceSetAttribute", status);
    };
    set(preferences.maxWorkspaceBytes, options.workspaceBytes, 8);
    set(preferences.reductionSchemes, computeTypeReduction, 4);
    const [alignmentA, alignmentB, alignmentD] = problem.alignments;
    set(preferences.minAlignmentA, alignmentA, 4);
    set(preferences.minAlignmentB, alignmentB, 4);
    set(preferences.minAlignmentC, alignmentD, 4);
    set(preferences.minAlignmentD, alignmentD, 4);
    const results = new NativeWords(resultWords * options.count);
    const { operation, a, b, d } = descriptors;
    const status = functions.cublasLtMatmulAlgoGetHeuristic(
      this.#handle,
      operation,
      a,
      b,
      d,
      d,
      preference,
      options.count,
      results.address,
      words.address,
    );
    functions.cublasLtMatmulPreferenceDestroy(preference);
    if (status !== 0) return [];
    const found: LtAlgorithm[] = [];
    for (let index = 0; index < words.i32[0]; index++) {
      const base = index * resultWords;
      // cublasLtMatmulHeuristicResult_t: algorithm (64 bytes), workspace size, state, …
      const isUsable = results.i32[(base + 9) * 2] === 0;
      if (isUsable)
        found.push({
          bytes: results.bytes.slice(base * 8, base * 8 + algorithmBytes),
          workspaceBytes: results.word(base + 8),
        });
    }
    return found;
  }

  /** The workspace an algorithm needs for this problem, or undefined where it cannot compute it. */
  checkAlgorithm(descriptors: LtDescriptors, bytes: Uint8Array): number | undefined {
    invariant(bytes.byteLength === algorithmBytes, "an algorithm has 64 bytes");
    const words = new NativeWords(resultWords + algorithmBytes / 8);
    words.bytes.set(bytes, resultWords * 8);
    const { operation, a, b, d } = descriptors;
    const algorithm = words.address + resultWords * 8;
    const status = this.functions.cublasLtMatmulAlgoCheck(
      this.#handle,
      operation,
      a,
      b,
      d,
      d,
      algorithm,
      words.address,
    );
    return status === 0 && words.i32[18] === 0 ? words.word(8) : undefined;
  }

  /** Queues a product. `scalars` is the address of alpha and beta, two floats that are read during the call. */
  run(
    descriptors: LtDescriptors,
    operands: { a: number; b: number; d: number; scalars: number },
    algorithm: { address: number; workspace: number; workspaceBytes: number; stream: number },
  ): void {
    const { operation, a, b, d } = descriptors;
    const status = this.functions.cublasLtMatmul(
      this.#handle,
      operation,
      operands.scalars,
      operands.a,
      a,
      operands.b,
      b,
      operands.scalars + 4,
      operands.d,
      d,
      operands.d,
      d,
      algorithm.address,
      algorithm.workspace,
      algorithm.workspaceBytes,
      algorithm.stream,
    );
    if (status !== 0) throw libraryError("cublasLt", "cublasLtMatmul", status);
  }

  destroy(descriptors: LtDescriptors): void {
    this.functions.cublasLtMatmulDescDestroy(descriptors.operation);
    for (const layout of [descriptors.a, descriptors.b, descriptors.d])
      this.functions.cublasLtMatrixLayoutDestroy(layout);
  }

  /** Never throws. */
  dispose(): void {
    this.functions.cublasLtDestroy(this.#handle);
  }

  #layout(type: number, shape: readonly [rows: number, columns: number], stride: number): number {
    const status = this.functions.cublasLtMatrixLayoutCreate(
      this.#words.address,
      type,
      shape[0],
      shape[1],
      stride,
    );
    this.check("cublasLtMatrixLayoutCreate", status);
    return this.#words.word(0);
  }

  #setPointer(operation: number, attribute: number, address: number): void {
    this.#words.setWord(0, address);
    const status = this.functions.cublasLtMatmulDescSetAttribute(
      operation,
      attribute,
      this.#words.address,
      8,
    );
    this.check("cublasLtMatmulDescSetAttribute", status);
  }

  #setInt(operation: number, attribute: number, value: number): void {
    this.#words.i32[0] = value;
    const status = this.functions.cublasLtMatmulDescSetAttribute(
      operation,
      attribute,
      this.#words.address,
      4,
    );
    this.check("cublasLtMatmulDescSetAttribute", status);
  }
}
