/**
 * Products as cuBLASLt does them: descriptors and the algorithm are kept per kind of product, so that a call costs one native call.
 * Row-major c = op(a) op(b) is column-major c^T = op(b)^T op(a)^T, so b is the library's A, a its B, and a bias over columns its
 * bias over rows. Knows the rule by which an algorithm is chosen; tuning.ts does the timing.
 */
import { invariant, type Dtype } from "../../base/index.ts";
import type { OpArguments } from "../contract.ts";
import { AlgorithmCache, NearbyAlgorithms } from "./algorithms.ts";
import { CublasLt, type LtAlgorithm, type LtDescriptors, type LtDtype, type LtProblem } from "./cublaslt.ts";
import type { LaunchContext } from "./launcher.ts";
import type { CudaMemory } from "./memory.ts";
import { NativeWords } from "./native.ts";
import type { CudaSession } from "./session.ts";
import { isLasting, timeAlgorithms } from "./tuning.ts";

/** Enough for every split of the shapes of an 8B model; the library recommends 32 MiB on Hopper. */
export const mostWorkspaceBytes = 64 * 2 ** 20;
const numCandidates = 12;
/** Of products that are timed under lasting load. */
const numLastingCandidates = 36;
/** Products of less work than this take a few microseconds whatever the algorithm. */
const leastTimedFlops = 2e8;

/** Serving meets ever new numbers of rows; plans are cheap to make again, and graphs hold none. */
const mostPlans = 8192;

/** How a kind of product is done. */
export interface Plan {
  readonly descriptors: LtDescriptors;
  /** Holds the algorithm's bytes for native code. */
  readonly algorithm: NativeWords;
  readonly algorithmWorkspaceBytes: number;
}

/** A matrix by its address. */
export interface Operand {
  readonly address: number;
  readonly dtype: Dtype;
}

/** The operator's arguments with addresses for tensors. */
export interface Product extends Omit<OpArguments<"matmul">, "a" | "b" | "c" | "bias"> {
  readonly a: Operand;
  readonly b: Operand;
  readonly c: Operand;
  readonly bias: Operand | undefined;
  /** Addresses, where a and b are codes: (m) and (n). */
  readonly scales?: { readonly a: number; readonly b: number };
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

export interface ProductPlanOptions {
  readonly allowsTf32: boolean;
  readonly library?: ProductLibrary;
}

/** Bytes are codes. */
function libraryDtype({ dtype }: Operand): LtDtype {
  if (dtype === "u8") return "e4m3";
  invariant(dtype === "f32" || dtype === "bf16", "a product of floats or codes");
  return dtype;
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
}: Pick<OpArguments<"matmul">, "m" | "n" | "k" | "transposeA">): boolean {
  const isWhole = (size: number): boolean => size % 64 === 0;
  const isRank = (size: number): boolean => size < 64 && size % 8 === 0;
  const numWhole = [m, n, k].filter(isWhole).length;
  if (numWhole === 3) return true;
  return numWhole === 2 && (isRank(n) || isRank(k) || (transposeA === 1 && isRank(m)));
}

export class ProductPlans {
  readonly #session: CudaSession;
  readonly #memory: CudaMemory;
  readonly #library: ProductLibrary;
  readonly #cache: AlgorithmCache;
  readonly #allowsTf32: boolean;
  /** Undefined marks a product that the library cannot do. */
  readonly #known = new Map<string, Plan | undefined>();
  readonly #nearby = new NearbyAlgorithms();
  /** Alpha and beta of the present call. */
  readonly #scalars = new NativeWords(1);

  constructor(session: CudaSession, memory: CudaMemory, { allowsTf32, library }: ProductPlanOptions) {
    this.#session = session;
    this.#memory = memory;
    this.#library = library ?? new CublasLt(session.driver.majors);
    this.#cache = new AlgorithmCache(session.name, this.#library.version);
    this.#allowsTf32 = allowsTf32;
  }

  get libraryVersion(): number {
    return this.#library.version;
  }

  /** Queues the product; `workspace` is where the algorithm's scratch lies, the operator's own where nothing is said. */
  queue(
    context: LaunchContext,
    plan: Plan,
    { product, workspace }: { product: Product; workspace?: number },
  ): void {
    const neededBytes = plan.algorithmWorkspaceBytes;
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
        workspace: workspace ?? (neededBytes === 0 ? 0 : context.workspace(neededBytes)),
        workspaceBytes: neededBytes,
        stream: context.stream,
      },
    );
  }

  /** The library's A is the product's b. */
  #setScales(descriptors: LtDescriptors, { scales }: Product): void {
    if (scales !== undefined) this.#library.setScales(descriptors, { a: scales.b, b: scales.a });
  }

  /** How the library does the product; undefined where it cannot. */
  find(context: LaunchContext, product: Product): Plan | undefined {
    const { a, b, c, bias, m, n, k, lda, ldb, ldc, transposeA, transposeB } = product;
    const alignments = [alignmentOf(b.address), alignmentOf(a.address), alignmentOf(c.address)] as const;
    const flags = `${transposeA}${transposeB}${bias === undefined ? 0 : 1}${product.beta === 0 ? 0 : 1}`;
    const key = `${m} ${n} ${k} ${lda} ${ldb} ${ldc} ${flags} ${a.dtype} ${c.dtype} ${alignments.join(" ")}`;
    const known = this.#known.get(key);
    if (known !== undefined || this.#known.has(key)) return known;
    const problem: LtProblem = {
      rows: n,
      columns: m,
      inner: k,
      transposeA: transposeB === 1,
      transposeB: transposeA === 1,
      strideA: ldb,
      strideB: lda,
      strideD: ldc,
      input: libraryDtype(a),
      output: libraryDtype(c),
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
    if (this.#known.size >= mostPlans) this.#forget();
    this.#known.set(key, plan);
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
      workspaceBytes: mostWorkspaceBytes,
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
    if (neededBytes === undefined || neededBytes > mostWorkspaceBytes) return undefined;
    return { bytes, workspaceBytes: neededBytes };
  }

  /** Never throws. */
  dispose(): void {
    this.#forget();
    this.#library.dispose();
  }

  #forget(): void {
    for (const plan of this.#known.values()) if (plan !== undefined) this.#library.destroy(plan.descriptors);
    this.#known.clear();
  }
}
