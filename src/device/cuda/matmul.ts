/**
 * The operators matmul and matmulScaled: some products of a few rows (launch/streamedProduct.ts) or of low rank (launch/thinProduct.ts) by kernels of ours, all
 * others through cuBLASLt; codes that it cannot multiply (older libraries and GPUs, odd sizes) as bf16, which holds them exactly.
 * Row-major c = op(a) op(b) is column-major c^T = op(b)^T op(a)^T, so b is the library's A, a its B, and a bias over columns its
 * bias over rows. Descriptors and the algorithm are kept per kind of product, so that a call costs one native call.
 * Knows the rule by which an algorithm is chosen; tuning.ts does the timing.
 */
import { dtypeBytes, UnsupportedOpError, type Dtype } from "../../base/index.ts";
import type { OpArguments, TensorArgument } from "../contract.ts";
import { AlgorithmCache, NearbyAlgorithms } from "./algorithms.ts";
import {
  CublasLt,
  scaleVectorsVersion,
  type LtAlgorithm,
  type LtDescriptors,
  type LtDtype,
  type LtProblem,
} from "./cublaslt.ts";
import { launchScale, launchWiden, runFewScaledRows } from "./launch/scaledProduct.ts";
import { runStreamedProduct, runStreamedScaledProduct } from "./launch/streamedProduct.ts";
import { productsOf, runLowRankBackward, runThinProduct } from "./launch/thinProduct.ts";
import { accumulatedRows, launchAdd, launchFinish, needsAccumulator } from "./launch/product.ts";
import { addressOf, type LaunchContext } from "./launcher.ts";
import type { CudaMemory } from "./memory.ts";
import { NativeWords } from "./native.ts";
import type { CudaSession } from "./session.ts";
import { isLasting, timeAlgorithms } from "./tuning.ts";

/** Enough for every split of the shapes of an 8B model; the library recommends 32 MiB on Hopper. */
const workspaceBytes = 64 * 2 ** 20;
const numCandidates = 12;
/** Of products that are timed under lasting load. */
const numLastingCandidates = 36;
/** Products of less work than this take a few microseconds whatever the algorithm. */
const leastTimedFlops = 2e8;

/** Serving meets ever new numbers of rows; plans are cheap to make again, and graphs hold none. */
const mostPlans = 8192;

interface Plan {
  readonly descriptors: LtDescriptors;
  /** Holds the algorithm's bytes for native code. */
  readonly algorithm: NativeWords;
  readonly algorithmWorkspaceBytes: number;
}

/** Tensor cores of codes: Ada's and later ones. */
const codesCapability = 89;
/** Of every size and row, in elements of a byte. */
const codesMultiple = 16;

type MatmulArguments = OpArguments<"matmul">;
type ScaledArguments = OpArguments<"matmulScaled">;

/** A matrix by its address. */
interface Operand {
  readonly address: number;
  readonly dtype: Dtype;
}

/** The operator's arguments with addresses for tensors. */
interface Product extends Omit<MatmulArguments, "a" | "b" | "c" | "bias"> {
  readonly a: Operand;
  readonly b: Operand;
  readonly c: Operand;
  readonly bias: Operand | undefined;
  /** Addresses, where a and b are codes: (m) and (n). */
  readonly scales?: { readonly a: number; readonly b: number };
}

function operandOf(tensor: TensorArgument): Operand {
  return { address: addressOf(tensor), dtype: tensor.dtype };
}

/** What is used of cuBLASLt; tests put their own in its place. */
export type ProductLibrary = Pick<
  CublasLt,
  | "version"
  | "describe"
  | "setBias"
  | "setScales"
  | "algorithms"
  | "checkAlgorithm"
  | "run"
  | "destroy"
  | "dispose"
>;

/** Whether the products of these dtypes are supported: f32 of f32, bf16 or f32 of bf16. */
export function supportsMatmul(dtypes: Readonly<Partial<Record<string, Dtype>>>): boolean {
  const { a = "f32", b = a, c = a, bias = c } = dtypes;
  const isFloat = (dtype: Dtype): boolean => dtype === "f32" || dtype === "bf16";
  if (!isFloat(a) || a !== b || !isFloat(c) || !isFloat(bias)) return false;
  return (a === "bf16" || c === "f32") && (bias === c || c === "f32");
}

/** The largest power of two up to 256 that divides `value`. */
function alignmentOf(value: number): number {
  return Math.min(256, value % 256 === 0 ? 256 : value & -value);
}

/**
 * Whether training makes such a product in every step: whole 64s, or the few columns of an adapter's rank on one side. Few rows are an
 * activation's (which come and go) unless a is transposed, as in the gradient of a weight.
 */
export function isRegular({
  m,
  n,
  k,
  transposeA,
}: Pick<MatmulArguments, "m" | "n" | "k" | "transposeA">): boolean {
  const isWhole = (size: number): boolean => size % 64 === 0;
  const isRank = (size: number): boolean => size < 64 && size % 8 === 0;
  const numWhole = [m, n, k].filter(isWhole).length;
  if (numWhole === 3) return true;
  return numWhole === 2 && (isRank(n) || isRank(k) || (transposeA === 1 && isRank(m)));
}

export class CudaMatmul {
  readonly #session: CudaSession;
  readonly #memory: CudaMemory;
  readonly #library: ProductLibrary;
  readonly #cache: AlgorithmCache;
  readonly #allowsTf32: boolean;
  /** NAUTILUS_STREAMED=off leaves every product to the library, to compare. */
  readonly #usesStreamed = process.env["NAUTILUS_STREAMED"] !== "off";
  /** NAUTILUS_THIN_PRODUCTS=off, likewise; =apart makes the two gradients of a low-rank addition one by one. */
  readonly #thinProducts = process.env["NAUTILUS_THIN_PRODUCTS"];
  /** Undefined marks a product that the library cannot do. */
  readonly #plans = new Map<string, Plan | undefined>();
  readonly #nearby = new NearbyAlgorithms();
  /** Alpha and beta of the present call. */
  readonly #scalars = new NativeWords(1);

  constructor(
    session: CudaSession,
    memory: CudaMemory,
    options: { allowsTf32: boolean; library?: ProductLibrary },
  ) {
    this.#session = session;
    this.#memory = memory;
    this.#library = options.library ?? new CublasLt(session.driver.majors);
    this.#cache = new AlgorithmCache(session.name, this.#library.version);
    this.#allowsTf32 = options.allowsTf32;
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
    const fused = withBias && this.#plan(context, withBias);
    const product = fused === undefined || withBias === undefined ? plain : withBias;
    const plan = fused ?? this.#plan(context, plain);
    if (plan === undefined) throw unsupported(args);
    const neededBytes = plan.algorithmWorkspaceBytes;
    this.#queue(context, plan, {
      product,
      workspace: neededBytes === 0 ? 0 : context.workspace(neededBytes),
    });
    if (fused === undefined && bias !== undefined) launchFinish(context, args, 1);
  }

  /** The product of codes by the library's kernels for them, and whether it has one. */
  #multiplyCodes(context: LaunchContext, args: ScaledArguments): boolean {
    const { a, aScales, b, bScales, bias, c, m, n, k, ldc } = args;
    const isPossible =
      this.#library.version >= scaleVectorsVersion &&
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
    const plan = this.#plan(context, product);
    if (plan === undefined) return false;
    const neededBytes = plan.algorithmWorkspaceBytes;
    this.#queue(context, plan, {
      product,
      workspace: neededBytes === 0 ? 0 : context.workspace(neededBytes),
    });
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
    const scratch = context.workspace(aBytes + bBytes + sumsBytes + workspaceBytes);
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
      const plan = this.#plan(context, product);
      if (plan === undefined) throw unsupported({ ...args, lda: k, ldb: k });
      this.#queue(context, plan, { product, workspace: sums + sumsBytes });
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
      const plan = this.#plan(context, product);
      if (plan === undefined) throw unsupported(args);
      // An operator has one block of scratch: the product, and behind it what the algorithm needs.
      const scratch = context.workspace(productBytes + plan.algorithmWorkspaceBytes);
      this.#queue(context, plan, {
        product: { ...product, c: { address: scratch, dtype: "f32" } },
        workspace: plan.algorithmWorkspaceBytes === 0 ? 0 : scratch + productBytes,
      });
      launchAdd(context, args, { product: scratch, start, numRows });
    }
  }

  /** Never throws. */
  dispose(): void {
    this.#forgetPlans();
    this.#library.dispose();
  }

  #forgetPlans(): void {
    for (const plan of this.#plans.values()) if (plan !== undefined) this.#library.destroy(plan.descriptors);
    this.#plans.clear();
  }

  #queue(
    context: LaunchContext,
    plan: Plan,
    { product, workspace }: { product: Product; workspace: number },
  ): void {
    if (product.bias !== undefined) this.#library.setBias(plan.descriptors, product.bias.address);
    this.#setScales(plan.descriptors, product);
    this.#scalars.f32[0] = product.alpha;
    this.#scalars.f32[1] = product.beta;
    this.#library.run(
      plan.descriptors,
      {
        a: product.b.address,
        b: product.a.address,
        d: product.c.address,
        scalars: this.#scalars.address,
      },
      {
        address: plan.algorithm.address,
        workspace,
        workspaceBytes: plan.algorithmWorkspaceBytes,
        stream: context.stream,
      },
    );
  }

  /** The library's A is the product's b. */
  #setScales(descriptors: LtDescriptors, { scales }: Product): void {
    if (scales !== undefined) this.#library.setScales(descriptors, { a: scales.b, b: scales.a });
  }

  #plan(context: LaunchContext, product: Product): Plan | undefined {
    const { a, b, c, bias, m, n, k, lda, ldb, ldc, transposeA, transposeB } = product;
    const alignments = [alignmentOf(b.address), alignmentOf(a.address), alignmentOf(c.address)] as const;
    const flags = `${transposeA}${transposeB}${bias === undefined ? 0 : 1}${product.beta === 0 ? 0 : 1}`;
    const key = `${m} ${n} ${k} ${lda} ${ldb} ${ldc} ${flags} ${a.dtype} ${c.dtype} ${alignments.join(" ")}`;
    const known = this.#plans.get(key);
    if (known !== undefined || this.#plans.has(key)) return known;
    const problem: LtProblem = {
      rows: n,
      columns: m,
      inner: k,
      transposeA: transposeB === 1,
      transposeB: transposeA === 1,
      strideA: ldb,
      strideB: lda,
      strideD: ldc,
      input: a.dtype === "u8" ? "e4m3" : (a.dtype as LtDtype),
      output: c.dtype as LtDtype,
      hasBias: bias !== undefined,
      alignments,
    };
    const descriptors = this.#library.describe(problem, { allowsTf32: this.#allowsTf32 });
    if (bias !== undefined) this.#library.setBias(descriptors, bias.address);
    this.#setScales(descriptors, product);
    const chosen = this.#choose(context, { key, problem, descriptors, product });
    let plan: Plan | undefined;
    if (chosen === undefined) this.#library.destroy(descriptors);
    else {
      const algorithm = new NativeWords(8);
      algorithm.bytes.set(chosen.bytes);
      plan = { descriptors, algorithm, algorithmWorkspaceBytes: chosen.workspaceBytes };
    }
    if (this.#plans.size >= mostPlans) this.#forgetPlans();
    this.#plans.set(key, plan);
    return plan;
  }

  /**
   * The fastest algorithm as timed before on this kind of machine, else timed now, else that of nearly as many rows, else the library's first choice. Unless the caller
   * says otherwise, shapes that come and go (see isRegular), outside of a graph, are not worth the time; in deterministic mode the
   * choice may not hang on a clock.
   */
  #choose(
    context: LaunchContext,
    request: { key: string; problem: LtProblem; descriptors: LtDescriptors; product: Product },
  ): LtAlgorithm | undefined {
    const { key, problem, descriptors, product } = request;
    const { m, n, k } = product;
    const isRepeated = context.isCapturing || isRegular(product);
    const isWorthTiming =
      !context.isDeterministic &&
      2 * m * n * k >= leastTimedFlops &&
      (context.tuning === "all" || (context.tuning === "repeated" && isRepeated));
    const cacheKey = `${key}${this.#allowsTf32 && problem.input === "f32" ? " tf32" : ""}`;
    const cached = context.isDeterministic ? undefined : this.#cache.get(cacheKey);
    if (cached !== undefined) {
      const usable = this.#usable(descriptors, Uint8Array.from(cached.bytes));
      if (usable !== undefined) {
        if (isLasting(problem)) this.#nearby.add(cacheKey, m, usable.bytes);
        return usable;
      }
    }
    if (!isWorthTiming && !context.isDeterministic && isLasting(problem)) {
      const near = this.#nearby.get(cacheKey, m);
      const usable = near && this.#usable(descriptors, near);
      if (usable !== undefined) return usable;
    }
    const candidates = this.#library.algorithms(problem, descriptors, {
      count: isWorthTiming ? (isLasting(problem) ? numLastingCandidates : numCandidates) : 1,
      workspaceBytes,
      isDeterministic: context.isDeterministic,
    });
    if (!isWorthTiming || candidates.length < 2) return candidates[0];
    const timed = timeAlgorithms(
      { session: this.#session, memory: this.#memory, library: this.#library, context },
      {
        problem,
        descriptors,
        candidates,
        a: product.b.address,
        b: product.a.address,
        d: product.c.address,
        beta: product.beta,
      },
    );
    if (timed === undefined) return candidates[0];
    this.#cache.set(cacheKey, { bytes: timed.algorithm.bytes, microseconds: timed.microseconds });
    if (isLasting(problem)) this.#nearby.add(cacheKey, m, timed.algorithm.bytes);
    return timed.algorithm;
  }

  /** The algorithm, where it can do the product. */
  #usable(descriptors: LtDescriptors, bytes: Uint8Array<ArrayBuffer>): LtAlgorithm | undefined {
    const neededBytes = this.#library.checkAlgorithm(descriptors, bytes);
    if (neededBytes === undefined || neededBytes > workspaceBytes) return undefined;
    return { bytes, workspaceBytes: neededBytes };
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
