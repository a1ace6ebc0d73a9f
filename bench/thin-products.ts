/**
 * The products that a LoRA adds to each projection of the 8.54 B model in a training step: milliseconds and GB/s by our kernels and by
 * cuBLASLt, and the share of what a copy reaches. Bytes are those of one pass over each large matrix. Then the largest matrix of a block
 * from NF4 to bf16, which QLoRA does three times a step. With `--products`, also what the frozen weight's own product costs when it adds to
 * what is there, so that the update could be written first, which then costs one pass less.
 *
 * usage: node bench/thin-products.ts [--rows 16384] [--rank 16] [--products]
 * Limit: 4,300 GB/s, read and written, is what a copy reaches on an H200 (data sheet: 4,800).
 */
import { parseArgs } from "node:util";
import { invariant } from "../src/base/index.ts";
import { createCudaDevice } from "../src/device/cuda/index.ts";
import {
  launchLowRankBackward,
  launchThinProduct,
  productsOf,
} from "../src/device/cuda/launch/thinProduct.ts";
import type { OpArguments, TensorArgument } from "../src/device/index.ts";
import { randomMatrix } from "./randomMatrix.ts";

const { values } = parseArgs({
  options: {
    rows: { type: "string", default: "16384" },
    rank: { type: "string", default: "16" },
    products: { type: "boolean", default: false },
  },
});
const numRows = Number(values.rows);
const rank = Number(values.rank);
const copyLimit = 4300;
const numLayers = 32;
const projections = [
  { label: "qkv", numInputs: 4096, numOutputs: 12_288, numParts: 3 },
  { label: "attention out", numInputs: 4096, numOutputs: 4096, numParts: 1 },
  { label: "ffn up", numInputs: 4096, numOutputs: 16_384, numParts: 1 },
  { label: "ffn down", numInputs: 16_384, numOutputs: 4096, numParts: 1 },
];

type Product = OpArguments<"matmul">;
type Gradients = OpArguments<"lowRankBackward">;
interface Operation {
  readonly label: string;
  /** Of one pass over each large matrix. */
  readonly bytes: number;
  readonly products: readonly Product[];
  /** What gives the same results from one reading of dy. */
  readonly together?: readonly Gradients[];
}

process.env["NAUTILUS_THIN_PRODUCTS"] = "off";
using device = createCudaDevice();

const at = (tensor: TensorArgument, element: number): TensorArgument => ({
  ...tensor,
  byteOffset: 2 * element,
});

const widest = 16_384;
/** Keeps what is added over and over from growing: the products of large matrices depend on their numbers' sizes, by the power they take. */
const small = 1e-6;
const [x, y] = [randomMatrix(device, numRows * widest), randomMatrix(device, numRows * widest)];
const [low, dlow] = [randomMatrix(device, numRows * 3 * rank), randomMatrix(device, numRows * 3 * rank)];
const [a, b, gradient] = [0, 1, 2].map(() => randomMatrix(device, widest * 3 * rank));

function operationsOf({ numInputs, numOutputs, numParts }: (typeof projections)[number]): Operation[] {
  const ranks = numParts * rank;
  const partWidth = numOutputs / numParts;
  const parts = Array.from({ length: numParts }, (_, part) => part);
  const wholeX = { m: numRows, n: ranks, k: numInputs, lda: numInputs, ldc: ranks };
  const [inputBytes, outputBytes] = [2 * numRows * numInputs, 2 * numRows * numOutputs];
  const gradients = parts.map((part) => ({
    dy: at(y, part * partWidth),
    low: at(low, part * rank),
    b: at(b, part * partWidth * rank),
    dlow: at(dlow, part * rank),
    db: at(gradient, part * partWidth * rank),
    numRows,
    width: partWidth,
    rank,
    dyRowStride: numOutputs,
    lowRowStride: ranks,
    dlowRowStride: ranks,
    alpha: small,
    beta: 1,
  }));
  const backward = gradients.map(productsOf);
  const plain = { transposeA: 0, transposeB: 0, alpha: 1, beta: 0 };
  return [
    {
      label: "x A^T",
      bytes: inputBytes,
      products: [{ ...plain, ...wholeX, a: x, b: a, c: low, ldb: numInputs, transposeB: 1, alpha: small }],
    },
    {
      label: "y += low B^T",
      bytes: 2 * outputBytes,
      products: parts.map((part) => ({
        ...plain,
        a: at(low, part * rank),
        b: at(b, part * partWidth * rank),
        c: at(y, part * partWidth),
        m: numRows,
        n: partWidth,
        k: rank,
        lda: ranks,
        ldb: rank,
        ldc: numOutputs,
        transposeB: 1,
        beta: 1,
      })),
    },
    { label: "dlow = dy B", bytes: outputBytes, products: backward.map(([down]) => down) },
    { label: "dB += dy^T low", bytes: outputBytes, products: backward.map(([, sum]) => sum) },
    {
      label: "dlow and dB",
      bytes: outputBytes,
      products: backward.flat(),
      together: gradients,
    },
    {
      label: "dA += dlow^T x",
      bytes: inputBytes,
      products: [
        {
          ...plain,
          a: dlow,
          b: x,
          c: gradient,
          m: ranks,
          n: numInputs,
          k: numRows,
          lda: ranks,
          ldb: numInputs,
          ldc: numInputs,
          transposeA: 1,
          beta: 1,
        },
      ],
    },
    {
      label: "dx += dlow A",
      bytes: 2 * inputBytes,
      products: [
        {
          ...plain,
          a: dlow,
          b: a,
          c: x,
          m: numRows,
          n: numInputs,
          k: ranks,
          lda: ranks,
          ldb: numInputs,
          ldc: numInputs,
          beta: 1,
        },
      ],
    },
  ];
}

/** Milliseconds of a graph of several rounds, per round. */
function timed<Arguments>(list: readonly Arguments[], run: (args: Arguments) => void): number {
  const numRounds = 10;
  // Algorithms are chosen before the capture.
  for (const args of list) run(args);
  const graph = device.capture(() => {
    for (let round = 0; round < numRounds; round++) for (const args of list) run(args);
  });
  let best = Infinity;
  for (let replay = 0; replay < 3; replay++) {
    device.synchronize();
    const startMs = performance.now();
    graph.replay();
    device.synchronize();
    best = Math.min(best, (performance.now() - startMs) / numRounds);
  }
  graph.dispose();
  return best;
}

const own = (args: Product): void =>
  invariant(launchThinProduct(device.launchContext, args), "a product that the kernels can do");
const ownTogether = (args: Gradients): void =>
  invariant(launchLowRankBackward(device.launchContext, args), "a pair that the kernel can do");
const byLibrary = (args: Product): void => device.run("matmul", args);

console.log(`${device.description}; ${numRows} rows, rank ${rank}; share of ${copyLimit} GB/s`);
for (const projection of projections) {
  let [ownMs, libraryMs, leastMs] = [0, 0, 0];
  for (const { label, bytes, products, together } of operationsOf(projection)) {
    const ours = together === undefined ? timed(products, own) : timed(together, ownTogether);
    const theirs = timed(products, byLibrary);
    // The pair stands for its two products in what a step takes.
    const isPart = /^(dlow = |dB)/.test(label);
    if (!isPart)
      [ownMs, libraryMs, leastMs] = [ownMs + ours, libraryMs + theirs, leastMs + bytes / copyLimit / 1e6];
    const rate = (ms: number): string =>
      `${ms.toFixed(3).padStart(7)} ms ${(bytes / ms / 1e6).toFixed(0).padStart(5)} GB/s ${((100 * bytes) / ms / 1e6 / copyLimit).toFixed(0).padStart(3)} %`;
    console.log(
      `${projection.label.padEnd(14)} ${label.padEnd(15)} ours ${rate(ours)}   cuBLASLt ${rate(theirs)}   ${(theirs / ours).toFixed(2)} times`,
    );
  }
  console.log(
    `${projection.label.padEnd(14)} of ${numLayers} layers, dlow and dB together: ours ${(numLayers * ownMs).toFixed(1)} ms, cuBLASLt ${(numLayers * libraryMs).toFixed(1)} ms, one pass over everything ${(numLayers * leastMs).toFixed(1)} ms`,
  );
}

{
  const numElements = 16_384 * 4096;
  const bytes = (numElements / 2) * (1 + 1 / 32) + 2 * numElements;
  const as = (dtype: "u8" | "f32"): TensorArgument => ({ ...randomMatrix(device, numElements / 2), dtype });
  const weight = { codes: as("u8"), scaleCodes: as("u8"), scaleTable: as("f32"), scaleScales: as("f32") };
  const layout = { numRows: 16_384, width: 4096, groupSize: 64, format: 1, scaleOffset: 0.5 };
  const ms = timed([{ ...weight, ...layout, y }], (args) => device.run("dequantise", args));
  console.log(`NF4 to bf16, 16384 x 4096: ${ms.toFixed(3)} ms, ${(bytes / ms / 1e6).toFixed(0)} GB/s`);
}

if (values.products) {
  const weight = randomMatrix(device, 12_288 * 4096);
  for (const projection of projections.slice(0, 2)) {
    const { label, numInputs, numOutputs } = projection;
    for (const { label: update, products } of operationsOf(projection).filter(
      (operation) => operation.label.includes("y += ") || operation.label.includes("dx += "),
    ))
      console.log(
        `${label} ${update}: assigned instead of added ${timed(
          products.map((product) => ({ ...product, beta: 0 })),
          own,
        ).toFixed(3)} ms`,
      );
    for (const isBackward of [false, true]) {
      const [n, k] = isBackward ? [numInputs, numOutputs] : [numOutputs, numInputs];
      const shape = { m: numRows, n, k, lda: k, ldb: numInputs, ldc: n, transposeA: 0, alpha: 1 };
      const operands = { a: x, b: weight, c: y, ...shape, transposeB: Number(!isBackward) };
      const [assigned, added] = [0, 1].map((beta) => timed([{ ...operands, beta }], byLibrary));
      console.log(
        `${label} ${isBackward ? "dx = dy W" : "y = x W^T"}: ${assigned.toFixed(3)} ms; adding to what is there ${added.toFixed(3)} ms (beta = 1)`,
      );
    }
  }
}
