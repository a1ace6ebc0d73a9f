/** The operators at the sizes that matter, with the least work that each must do: bytes moved to and from memory, and arithmetic. */
import { dtypeBytes } from "../src/base/index.ts";
import { ops, type OpSpec } from "../src/device/index.ts";
import { conformanceCase, integers, operand, operandsOf } from "../test/conformance/case.ts";
import type { AnyProblem, ConformanceCase } from "../test/conformance/case.ts";
import {
  attentionBackwardCase,
  attentionForwardCase,
  type AttentionSetting,
} from "../test/conformance/cases/attention.ts";
import { attentionPagedCase } from "../test/conformance/cases/cache.ts";
import type { TensorDtype } from "../test/conformance/cases/common.ts";
import { matmulCase } from "../test/conformance/cases/matmul.ts";
import { normBackwardCase, normForwardCase } from "../test/conformance/cases/norm.ts";
import { adamwCase } from "../test/conformance/cases/optimizer.ts";

/** Lengths of a model and a batch. */
export interface Sizes {
  /** Rows of a step, N. */
  numRows: number;
  /** C */
  width: number;
  /** F */
  ffnWidth: number;
  vocabSize: number;
  /** Rows of logits at a time. */
  numLogitRows: number;
  /** T, of one sequence. */
  sequenceLength: number;
  numHeads: number;
  headDim: number;
  /** Parameters of one optimizer call. */
  numParameters: number;
  /** Sequences and context of a decoding step. */
  numDecoding: number;
  contextLength: number;
}

/** The 8B model for a GPU, and a small one for a CPU. */
export const sizes: Readonly<Record<"cpu" | "cuda", Sizes>> = {
  cuda: {
    numRows: 4096,
    width: 4096,
    ffnWidth: 16_384,
    vocabSize: 256_000,
    numLogitRows: 1024,
    sequenceLength: 4096,
    numHeads: 32,
    headDim: 128,
    numParameters: 2 ** 27,
    numDecoding: 64,
    contextLength: 1024,
  },
  cpu: {
    numRows: 512,
    width: 2048,
    ffnWidth: 8192,
    vocabSize: 32_000,
    numLogitRows: 128,
    sequenceLength: 512,
    numHeads: 8,
    headDim: 128,
    numParameters: 2 ** 23,
    numDecoding: 8,
    contextLength: 512,
  },
};

export interface BenchCase {
  readonly conformanceCase: ConformanceCase;
  /** Floating-point operations; 0 where memory alone matters. */
  readonly flops: number;
  /** Bytes that cannot be spared. */
  readonly bytes: (problem: AnyProblem) => number;
}

/** Every operand once, and twice where it is read and written. */
function allBytes(op: keyof typeof ops): (problem: AnyProblem) => number {
  const spec: OpSpec = ops[op];
  return (problem) =>
    operandsOf(problem).reduce((total, [name, { dtype, numRows, width, values }]) => {
      const isUpdated = spec.tensors[name].startsWith("update") && values !== undefined;
      return total + numRows * width * dtypeBytes(dtype) * (isUpdated ? 2 : 1);
    }, 0);
}

function memoryCase(candidate: ConformanceCase, bytes = allBytes(candidate.op)): BenchCase {
  return { conformanceCase: candidate, flops: 0, bytes };
}

function arithmeticCase(candidate: ConformanceCase, flops: number): BenchCase {
  return { conformanceCase: candidate, flops, bytes: allBytes(candidate.op) };
}

function elementwiseCases(dtype: TensorDtype, { numRows, width, ffnWidth, vocabSize }: Sizes): BenchCase[] {
  const numElements = numRows * ffnWidth;
  const label = `${dtype} ${numElements}`;
  const kind = 0;
  const rows = { width, stride: width };
  return [
    memoryCase(
      conformanceCase("add", label, (data) => ({
        a: operand(dtype, numElements, { values: data.normal(numElements) }),
        b: operand(dtype, numElements, { values: data.normal(numElements) }),
        y: operand(dtype, numElements),
        numElements,
      })),
    ),
    memoryCase(
      conformanceCase("scaleRows", `${dtype} (${numRows}, ${width})`, (data) => ({
        x: operand(dtype, numRows, { ...rows, values: data.normal(numRows * width) }),
        rowScales: operand("f32", numRows, { values: data.normal(numRows) }),
        y: operand(dtype, numRows, rows),
        numRows,
        width,
      })),
    ),
    memoryCase(
      conformanceCase("convert", `${dtype} to f32 ${numElements}`, (data) => ({
        x: operand(dtype, numElements, { values: data.normal(numElements) }),
        y: operand("f32", numElements),
        numElements,
      })),
    ),
    memoryCase(
      conformanceCase("randomNormal", label, () => ({
        y: operand(dtype, numElements),
        numElements,
        seed: 1,
        counter: 0,
        mean: 0,
        std: 1,
      })),
    ),
    memoryCase(
      conformanceCase("sumOfSquares", label, (data) => ({
        x: operand(dtype, numElements, { values: data.normal(numElements) }),
        accumulator: operand("f64", 1, { values: () => Float64Array.of(0) }),
        numElements,
      })),
    ),
    memoryCase(
      conformanceCase("activationForward", `squared ReLU ${label}`, (data) => ({
        x: operand(dtype, numElements, { values: data.normal(numElements) }),
        y: operand(dtype, numElements),
        numElements,
        kind,
      })),
    ),
    memoryCase(
      conformanceCase("activationBackward", `squared ReLU ${label}`, (data) => ({
        x: operand(dtype, numElements, { values: data.normal(numElements) }),
        dy: operand(dtype, numElements, { values: data.normal(numElements) }),
        dx: operand(dtype, numElements),
        numElements,
        kind,
      })),
    ),
    memoryCase(
      conformanceCase("embeddingForward", `${dtype} (${numRows} of ${vocabSize}, ${width})`, (data) => ({
        tokens: operand("i32", numRows, { values: data.integers(numRows, 0, vocabSize) }),
        weight: operand(dtype, vocabSize, { ...rows, values: data.normal(vocabSize * width) }),
        y: operand(dtype, numRows, rows),
        numRows,
        width,
        vocabSize,
      })),
      () => 2 * numRows * width * dtypeBytes(dtype),
    ),
    memoryCase(
      conformanceCase("embeddingBackward", `${dtype} (${numRows} of ${vocabSize}, ${width})`, (data) => ({
        tokens: operand("i32", numRows, { values: data.integers(numRows, 0, vocabSize) }),
        dy: operand(dtype, numRows, { ...rows, values: data.normal(numRows * width) }),
        dweight: operand(dtype, vocabSize, { ...rows, values: data.normal(vocabSize * width) }),
        numRows,
        width,
        vocabSize,
      })),
      () => 3 * numRows * width * dtypeBytes(dtype),
    ),
    memoryCase(
      conformanceCase("sumRows", `${dtype} (${numRows} of ${2 * numRows}, ${width})`, (data) => ({
        x: operand(dtype, 2 * numRows, { ...rows, values: data.normal(2 * numRows * width) }),
        starts: integers(
          "i32",
          Array.from({ length: numRows + 1 }, (_, row) => 2 * row),
        ),
        // Two copies of every row, as pairs that share a prompt have them.
        sources: integers(
          "i32",
          Array.from({ length: 2 * numRows }, (_, i) => (i >> 1) + (i & 1) * numRows),
        ),
        y: operand(dtype, numRows, rows),
        numRows,
        width,
        numSources: 2 * numRows,
      })),
    ),
  ];
}

function rowCases(
  dtype: TensorDtype,
  { numRows, width, numHeads, headDim, vocabSize, numLogitRows }: Sizes,
): BenchCase[] {
  const fused = 3 * numHeads * headDim;
  const maxPositions = 4096;
  return [
    memoryCase(
      normForwardCase(
        "layerNormForward",
        { numRows, width, hasAddend: true, hasSum: true, hasBias: true, hasStatistics: true },
        dtype,
      ),
    ),
    memoryCase(
      normBackwardCase(
        "layerNormBackward",
        { numRows, width, hasSumGradient: true, hasWeightGradients: true },
        [dtype, dtype],
      ),
    ),
    memoryCase(
      normForwardCase(
        "rmsNormForward",
        { numRows, width, hasAddend: true, hasSum: true, hasStatistics: true },
        dtype,
      ),
    ),
    memoryCase(
      normBackwardCase(
        "rmsNormBackward",
        { numRows, width, hasSumGradient: true, hasWeightGradients: true },
        [dtype, dtype],
      ),
    ),
    memoryCase(
      conformanceCase("columnSum", `${dtype} (${numRows}, ${width})`, (data) => ({
        x: operand(dtype, numRows, { width, values: data.normal(numRows * width) }),
        y: operand(dtype, width),
        numRows,
        width,
        beta: 0,
      })),
    ),
    memoryCase(
      conformanceCase(
        "rotary",
        `${dtype} ${numRows} rows, ${2 * numHeads} heads of ${headDim}, half turned, in place`,
        (data) => ({
          x: operand(dtype, numRows, { width: fused, values: data.normal(numRows * fused) }),
          positions: operand("i32", numRows, { values: data.integers(numRows, 0, maxPositions) }),
          cosSin: operand("f32", maxPositions, {
            width: headDim / 2,
            values: data.uniform((maxPositions * headDim) / 2, -1, 1),
          }),
          y: operand(dtype, numRows, { width: fused, sameAs: "x" }),
          numRows,
          numHeads: 2 * numHeads,
          headDim,
          rotaryDim: headDim / 2,
          xRowStride: fused,
          yRowStride: fused,
          inverse: 0,
        }),
      ),
      () => 2 * numRows * 2 * numHeads * (headDim / 2) * dtypeBytes(dtype),
    ),
    memoryCase(
      conformanceCase("crossEntropy", `${dtype} (${numLogitRows}, ${vocabSize}) with gradient`, (data) => ({
        logits: operand(dtype, numLogitRows, {
          width: vocabSize,
          values: data.normal(numLogitRows * vocabSize),
        }),
        targets: operand("i32", numLogitRows, { values: data.integers(numLogitRows, 0, vocabSize) }),
        losses: operand("f32", numLogitRows),
        numRows: numLogitRows,
        vocabSize,
        ignoreIndex: -1,
        writeGradient: 1,
        gradientScale: 1,
      })),
    ),
  ];
}

function productCases(dtype: TensorDtype, { numRows, width, ffnWidth }: Sizes): BenchCase[] {
  const shapes = [
    { m: numRows, n: ffnWidth, k: width, transposeB: true },
    { m: numRows, n: width, k: ffnWidth },
    { m: ffnWidth, n: width, k: numRows, transposeA: true },
    { m: 1, n: ffnWidth, k: width, transposeB: true },
  ];
  return shapes.map((shape) =>
    arithmeticCase(matmulCase(shape, dtype, dtype), 2 * shape.m * shape.n * shape.k),
  );
}

function attentionCases(dtype: TensorDtype, size: Sizes): BenchCase[] {
  const { sequenceLength, numHeads, headDim, numDecoding, contextLength } = size;
  const setting: AttentionSetting = {
    queryLength: sequenceLength,
    numHeads,
    numKvHeads: numHeads,
    headDim,
    isCausal: true,
  };
  // Two products of 2 T^2 D per head, half of them masked; five in the backward pass.
  const flops = 2 * numHeads * sequenceLength ** 2 * headDim;
  return [
    arithmeticCase(attentionForwardCase(setting, dtype), flops),
    arithmeticCase(attentionBackwardCase(setting, dtype), 2.5 * flops),
    memoryCase(
      attentionPagedCase(
        {
          sequences: Array.from({ length: numDecoding }, () => [1, contextLength]),
          blockSize: 16,
          numHeads,
          numKvHeads: numHeads,
          headDim,
        },
        dtype,
      ),
    ),
  ];
}

function optimizerCases(dtype: TensorDtype, { numParameters }: Sizes): BenchCase[] {
  const step = { numElements: numParameters, step: 10, coefficient: 1, weightDecay: 0.1 };
  const states =
    dtype === "f32"
      ? [{ param: dtype, grad: dtype, state: dtype }]
      : [
          { param: dtype, grad: dtype, state: dtype, isStochastic: true },
          { param: dtype, grad: dtype, state: "f32" as const, hasMaster: true },
        ];
  return states.map((state) => memoryCase(adamwCase(state, step)));
}

function sampleCase({ numDecoding, vocabSize }: Sizes): BenchCase {
  const perRow = (value: number) => ({ values: () => new Float64Array(numDecoding).fill(value) });
  return memoryCase(
    conformanceCase("sample", `${numDecoding} rows of ${vocabSize}, topK 50, topP 0.9`, (data) => ({
      logits: operand("f32", numDecoding, {
        width: vocabSize,
        values: data.normal(numDecoding * vocabSize, { std: 3 }),
      }),
      temperature: operand("f32", numDecoding, perRow(0.8)),
      topK: operand("i32", numDecoding, perRow(50)),
      topP: operand("f32", numDecoding, perRow(0.9)),
      minP: operand("f32", numDecoding, perRow(0)),
      seeds: operand("i64", numDecoding, perRow(1)),
      counters: operand("i64", numDecoding, { values: data.integers(numDecoding, 0, 1000) }),
      tokens: operand("i32", numDecoding),
      logprobs: operand("f32", numDecoding),
      numRows: numDecoding,
      vocabSize,
    })),
  );
}

export function benchCases(dtype: TensorDtype, size: Sizes): BenchCase[] {
  return [
    ...productCases(dtype, size),
    ...attentionCases(dtype, size),
    ...elementwiseCases(dtype, size),
    ...rowCases(dtype, size),
    ...optimizerCases(dtype, size),
    sampleCase(size),
  ];
}
