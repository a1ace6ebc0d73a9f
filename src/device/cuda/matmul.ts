/**
 * The operators matmul and matmulScaled: some products of a few rows (launch/streamedProduct.ts) or of low rank (launch/thinProduct.ts) by kernels of ours, all
 * others through cuBLASLt (productPlans.ts); codes that it cannot multiply (older libraries and GPUs, odd sizes) as bf16, which holds them exactly.
 * Knows which way a product goes and what is done before and after it.
 */
import { dtypeBytes, UnsupportedOpError, type Dtype } from "../../base/index.ts";
import type { OpArguments, TensorArgument } from "../contract.ts";
import { scaleVectorsVersion } from "./cublaslt.ts";
import { launchScale, launchWiden, runFewScaledRows } from "./launch/scaledProduct.ts";
import { runStreamedProduct, runStreamedScaledProduct } from "./launch/streamedProduct.ts";
import { productsOf, runLowRankBackward, runThinProduct } from "./launch/thinProduct.ts";
import { accumulatedRows, launchAdd, launchFinish, needsAccumulator } from "./launch/product.ts";
import { addressOf, type LaunchContext } from "./launcher.ts";
import type { CudaMemory } from "./memory.ts";
import {
  mostWorkspaceBytes,
  ProductPlans,
  type Operand,
  type Product,
  type ProductPlanOptions,
} from "./productPlans.ts";
import type { CudaSession } from "./session.ts";

/** Tensor cores of codes: Ada's and later ones. */
const codesCapability = 89;
/** Of every size and row, in elements of a byte. */
const codesMultiple = 16;

type MatmulArguments = OpArguments<"matmul">;
type ScaledArguments = OpArguments<"matmulScaled">;

function operandOf(tensor: TensorArgument): Operand {
  return { address: addressOf(tensor), dtype: tensor.dtype };
}

/** Whether the products of these dtypes are supported: f32 of f32, bf16 or f32 of bf16. */
export function supportsMatmul(dtypes: Readonly<Partial<Record<string, Dtype>>>): boolean {
  const { a = "f32", b = a, c = a, bias = c } = dtypes;
  const isFloat = (dtype: Dtype): boolean => dtype === "f32" || dtype === "bf16";
  if (!isFloat(a) || a !== b || !isFloat(c) || !isFloat(bias)) return false;
  return (a === "bf16" || c === "f32") && (bias === c || c === "f32");
}

export class CudaMatmul {
  readonly #plans: ProductPlans;
  /** NAUTILUS_STREAMED=off leaves every product to the library, to compare. */
  readonly #usesStreamed = process.env["NAUTILUS_STREAMED"] !== "off";
  /** NAUTILUS_THIN_PRODUCTS=off, likewise; =apart makes the two gradients of a low-rank addition one by one. */
  readonly #thinProducts = process.env["NAUTILUS_THIN_PRODUCTS"];

  constructor(session: CudaSession, memory: CudaMemory, options: ProductPlanOptions) {
    this.#plans = new ProductPlans(session, memory, options);
  }

  /** Queues the operator. Throws UnsupportedOpError. */
  readonly run = (context: LaunchContext, args: MatmulArguments): void => {
    const { a, b, c, bias, m, n, k } = args;
    if (m === 0 || n === 0) return;
    if (!supportsMatmul({ a: a.dtype, b: b.dtype, c: c.dtype, ...(bias && { bias: bias.dtype }) }))
      throw new UnsupportedOpError(
        "cuda",
        `expected matmul of f32 to f32 or of bf16 to bf16 or f32, got ${a.dtype} and ${b.dtype} to ${c.dtype}` +
          (bias === undefined ? "" : ` with a bias of ${bias.dtype}`),
      );
    if (k === 0) {
      launchFinish(context, args, args.beta);
      return;
    }
    if (this.#usesStreamed && runStreamedProduct(context, args)) return;
    if (this.#thinProducts !== "off" && runThinProduct(context, args)) return;
    if (needsAccumulator(args)) this.#accumulate(context, args);
    else this.#multiply(context, args);
  };

  /** Queues the operator matmulScaled. Throws UnsupportedOpError. */
  readonly runScaled = (context: LaunchContext, args: ScaledArguments): void => {
    if (args.m === 0 || args.n === 0) return;
    if (this.#usesStreamed && runStreamedScaledProduct(context, args)) return;
    if (runFewScaledRows(context, args)) return;
    if (!this.#multiplyCodes(context, args)) this.#multiplyWidened(context, args);
  };

  /** Queues the operator lowRankBackward. Throws UnsupportedOpError. */
  readonly runLowRankBackward = (context: LaunchContext, args: OpArguments<"lowRankBackward">): void => {
    const isFused = this.#thinProducts !== "off" && this.#thinProducts !== "apart";
    if (isFused && runLowRankBackward(context, args)) return;
    for (const product of productsOf(args)) this.run(context, product);
  };

  /** The product and what is added to it by the library, but for a bias of another dtype. */
  #multiply(context: LaunchContext, args: MatmulArguments): void {
    const { bias, c } = args;
    const plain: Product = {
      ...args,
      a: operandOf(args.a),
      b: operandOf(args.b),
      c: operandOf(c),
      bias: undefined,
    };
    const withBias =
      bias !== undefined && bias.dtype === c.dtype ? { ...plain, bias: operandOf(bias) } : undefined;
    const fused = withBias && this.#plans.find(context, withBias);
    const product = fused === undefined || withBias === undefined ? plain : withBias;
    const plan = fused ?? this.#plans.find(context, plain);
    if (plan === undefined) throw unsupported(args);
    this.#plans.queue(context, plan, { product });
    if (fused === undefined && bias !== undefined) launchFinish(context, args, 1);
  }

  /** The product of codes by the library's kernels for them, and whether it has one. */
  #multiplyCodes(context: LaunchContext, args: ScaledArguments): boolean {
    const { a, aScales, b, bScales, bias, c, m, n, k, ldc } = args;
    const isPossible =
      this.#plans.libraryVersion >= scaleVectorsVersion &&
      context.computeCapability >= codesCapability &&
      n % codesMultiple === 0 &&
      k % codesMultiple === 0 &&
      (ldc * dtypeBytes(c.dtype)) % 16 === 0 &&
      (bias === undefined || (bias.dtype === "bf16" && c.dtype === "bf16")) &&
      [a, b, c, aScales, bScales].every((tensor) => addressOf(tensor) % 16 === 0);
    if (!isPossible) return false;
    const layout = { m, n, k, lda: k, ldb: k, ldc, transposeA: 0, transposeB: 1, alpha: 1, beta: 0 };
    const product: Product = {
      ...layout,
      a: operandOf(a),
      b: operandOf(b),
      c: operandOf(c),
      bias: bias && operandOf(bias),
      scales: { a: addressOf(aScales), b: addressOf(bScales) },
    };
    const plan = this.#plans.find(context, product);
    if (plan === undefined) return false;
    this.#plans.queue(context, plan, { product });
    return true;
  }

  /** Both factors as bf16 in scratch, their f32 product some rows at a time, and a kernel of ours that scales it and rounds once. */
  #multiplyWidened(context: LaunchContext, args: ScaledArguments): void {
    const { a, b, m, n, k } = args;
    const step = accumulatedRows(m, n);
    const [aBytes, bBytes, sumsBytes] = [2 * m * k, 2 * n * k, 4 * step * n].map(
      (bytes) => Math.ceil(bytes / 256) * 256,
    );
    // As much as any algorithm may need: scratch must not move between the pieces.
    const scratch = context.workspace(aBytes + bBytes + sumsBytes + mostWorkspaceBytes);
    const [bScratch, sums] = [scratch + aBytes, scratch + aBytes + bBytes];
    launchWiden(context, { codes: a, to: scratch, numRows: m, width: k });
    launchWiden(context, { codes: b, to: bScratch, numRows: n, width: k });
    for (let start = 0; start < m; start += step) {
      const numRows = Math.min(step, m - start);
      const layout = { n, k, lda: k, ldb: k, ldc: n, transposeA: 0, transposeB: 1, alpha: 1, beta: 0 };
      const product: Product = {
        ...layout,
        a: { address: scratch + 2 * start * k, dtype: "bf16" },
        b: { address: bScratch, dtype: "bf16" },
        c: { address: sums, dtype: "f32" },
        bias: undefined,
        m: numRows,
      };
      const plan = this.#plans.find(context, product);
      if (plan === undefined) throw unsupported({ ...args, lda: k, ldb: k });
      this.#plans.queue(context, plan, { product, workspace: sums + sumsBytes });
      launchScale(context, args, { sums, start, numRows });
    }
  }

  /** The product to f32 scratch, some rows at a time, and a kernel of ours that adds the rest and rounds once. */
  #accumulate(context: LaunchContext, args: MatmulArguments): void {
    const { m, n, lda, transposeA } = args;
    const [a, b] = [operandOf(args.a), operandOf(args.b)];
    const step = accumulatedRows(m, n);
    const rowBytes = (transposeA === 1 ? 1 : lda) * dtypeBytes(a.dtype);
    for (let start = 0; start < m; start += step) {
      const numRows = Math.min(step, m - start);
      const productBytes = Math.ceil((numRows * n * 4) / 256) * 256;
      const product: Product = {
        ...args,
        a: { ...a, address: a.address + start * rowBytes },
        b,
        c: { address: context.workspace(productBytes), dtype: "f32" },
        bias: undefined,
        m: numRows,
        ldc: n,
        beta: 0,
      };
      const plan = this.#plans.find(context, product);
      if (plan === undefined) throw unsupported(args);
      // An operator has one block of scratch: the product, and behind it what the algorithm needs.
      const scratch = context.workspace(productBytes + plan.algorithmWorkspaceBytes);
      this.#plans.queue(context, plan, {
        product: { ...product, c: { address: scratch, dtype: "f32" } },
        workspace: plan.algorithmWorkspaceBytes === 0 ? 0 : scratch + productBytes,
      });
      launchAdd(context, args, { product: scratch, start, numRows });
    }
  }

  /** Never throws. */
  dispose(): void {
    this.#plans.dispose();
  }
}

function unsupported({
  m,
  n,
  k,
  lda,
  ldb,
  ldc,
  a,
  c,
}: Pick<MatmulArguments, "m" | "n" | "k" | "lda" | "ldb" | "ldc" | "a" | "c">): UnsupportedOpError {
  return new UnsupportedOpError(
    "cuda",
    `expected a product that cuBLASLt can do, got m ${m}, n ${n}, k ${k}, row strides ${lda}, ${ldb}, ${ldc}, ${a.dtype} to ${c.dtype}`,
  );
}
