/**
 * The matmul operator: some products of a few rows by a kernel of ours (launch/matvec.ts), all others through cuBLASLt.
 * Row-major c = op(a) op(b) is column-major c^T = op(b)^T op(a)^T, so b is the library's A, a its B, and a bias over columns its
 * bias over rows. Descriptors and the algorithm are kept per kind of product, so that a call costs one native call.
 * Knows the rule by which an algorithm is chosen; tuning.ts does the timing.
 */
import { UnsupportedOpError, type Dtype } from "../../base/index.ts";
import type { OpArguments, TensorArgument } from "../contract.ts";
import { AlgorithmCache } from "./algorithms.ts";
import { CublasLt, type LtAlgorithm, type LtDescriptors, type LtDtype, type LtProblem } from "./cublaslt.ts";
import { runMatvec } from "./launch/matvec.ts";
import { address, addressOf, cudaTypes, f32, i64, kernel, pointer, type LaunchContext } from "./launcher.ts";
import type { CudaMemory } from "./memory.ts";
import { NativeWords } from "./native.ts";
import type { CudaSession } from "./session.ts";
import { timeAlgorithms } from "./tuning.ts";

/** Enough for every split of the shapes of an 8B model; the library recommends 32 MiB on Hopper. */
const workspaceBytes = 64 * 2 ** 20;
const numCandidates = 12;
/** Products of less work than this take a few microseconds whatever the algorithm. */
const leastTimedFlops = 2e8;

/** Serving meets ever new numbers of rows; plans are cheap to make again, and graphs hold none. */
const mostPlans = 8192;

const finishProduct = (["f32", "bf16"] as const).map((c) => ({
  c,
  kernels: (["f32", "bf16"] as const).map((bias) =>
    kernel({
      file: "matmul.cu",
      entry: "finish_product",
      defines: { T: cudaTypes[c], Bias: cudaTypes[bias] },
    }),
  ),
}));

interface Plan {
  readonly descriptors: LtDescriptors;
  /** Holds the algorithm's bytes for native code. */
  readonly algorithm: NativeWords;
  readonly algorithmWorkspaceBytes: number;
}

type MatmulArguments = OpArguments<"matmul">;

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

export class CudaMatmul {
  readonly #session: CudaSession;
  readonly #memory: CudaMemory;
  readonly #library: CublasLt;
  readonly #cache: AlgorithmCache;
  readonly #allowsTf32: boolean;
  /** NAUTILUS_MATVEC=off leaves every product to the library, to compare. */
  readonly #usesMatvec = process.env["NAUTILUS_MATVEC"] !== "off";
  /** Undefined marks a product that the library cannot do. */
  readonly #plans = new Map<string, Plan | undefined>();
  /** Alpha and beta of the present call. */
  readonly #scalars = new NativeWords(1);

  constructor(session: CudaSession, memory: CudaMemory, options: { allowsTf32: boolean }) {
    this.#session = session;
    this.#memory = memory;
    this.#library = new CublasLt(session.driver.majors);
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
      this.#finish(context, args, args.beta);
      return;
    }
    if (this.#usesMatvec && runMatvec(context, args)) return;
    const fused = bias === undefined || bias.dtype === c.dtype ? this.#plan(context, args, bias) : undefined;
    const plan = fused ?? (bias === undefined ? undefined : this.#plan(context, args, undefined));
    if (plan === undefined)
      throw new UnsupportedOpError("cuda", `expected a product that cuBLASLt can do, got ${describe(args)}`);
    this.#queue(context, plan, args, fused === undefined ? undefined : bias);
    if (fused === undefined && bias !== undefined) this.#finish(context, args, 1);
  };

  /** Never throws. */
  dispose(): void {
    this.#forgetPlans();
    this.#library.dispose();
  }

  #forgetPlans(): void {
    for (const plan of this.#plans.values()) if (plan !== undefined) this.#library.destroy(plan.descriptors);
    this.#plans.clear();
  }

  #queue(context: LaunchContext, plan: Plan, args: MatmulArguments, bias: TensorArgument | undefined): void {
    if (bias !== undefined) this.#library.setBias(plan.descriptors, addressOf(bias));
    this.#scalars.f32[0] = args.alpha;
    this.#scalars.f32[1] = args.beta;
    const neededBytes = plan.algorithmWorkspaceBytes;
    this.#library.run(
      plan.descriptors,
      {
        a: addressOf(args.b),
        b: addressOf(args.a),
        d: addressOf(args.c),
        scalars: this.#scalars.address,
      },
      {
        address: plan.algorithm.address,
        workspace: neededBytes === 0 ? 0 : context.workspace(neededBytes),
        workspaceBytes: neededBytes,
        stream: context.stream,
      },
    );
  }

  /** c = beta * c + bias. */
  #finish(context: LaunchContext, args: MatmulArguments, beta: number): void {
    const { c, bias, m, n, ldc } = args;
    const row = finishProduct[c.dtype === "bf16" ? 1 : 0];
    // A grid has at most 65,535 rows.
    for (let start = 0; start < m; start += 65_535) {
      const numRows = Math.min(65_535, m - start);
      context.launch(
        row.kernels[bias?.dtype === "bf16" ? 1 : 0],
        { grid: [Math.min(64, Math.ceil(n / 256)), numRows], block: 256 },
        [
          address(addressOf(c) + start * ldc * (c.dtype === "bf16" ? 2 : 4)),
          pointer(bias),
          i64(n),
          i64(ldc),
          f32(beta),
        ],
      );
    }
  }

  #plan(context: LaunchContext, args: MatmulArguments, bias: TensorArgument | undefined): Plan | undefined {
    const { a, b, c, m, n, k, lda, ldb, ldc, transposeA, transposeB } = args;
    const alignments = [
      alignmentOf(addressOf(b)),
      alignmentOf(addressOf(a)),
      alignmentOf(addressOf(c)),
    ] as const;
    const flags = `${transposeA}${transposeB}${bias === undefined ? 0 : 1}${args.beta === 0 ? 0 : 1}`;
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
      input: a.dtype as LtDtype,
      output: c.dtype as LtDtype,
      hasBias: bias !== undefined,
      alignments,
    };
    const descriptors = this.#library.describe(problem, { allowsTf32: this.#allowsTf32 });
    if (bias !== undefined) this.#library.setBias(descriptors, addressOf(bias));
    const chosen = this.#choose(context, { key, problem, descriptors, args });
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
   * The fastest algorithm as timed before on this kind of machine, else timed now, else the library's first choice. Shapes that
   * come and go (rows that are no multiple of 64, outside of a graph) are not worth the time; in deterministic mode the choice may
   * not hang on a clock.
   */
  #choose(
    context: LaunchContext,
    request: { key: string; problem: LtProblem; descriptors: LtDescriptors; args: MatmulArguments },
  ): LtAlgorithm | undefined {
    const { key, problem, descriptors, args } = request;
    const { m, n, k } = args;
    const isWorthTiming =
      !context.isDeterministic &&
      2 * m * n * k >= leastTimedFlops &&
      (context.isCapturing || (m % 64 === 0 && n % 64 === 0 && k % 64 === 0));
    const cacheKey = `${key}${this.#allowsTf32 && problem.input === "f32" ? " tf32" : ""}`;
    const cached = context.isDeterministic ? undefined : this.#cache.get(cacheKey);
    if (cached !== undefined) {
      const neededBytes = this.#library.checkAlgorithm(descriptors, cached.bytes);
      if (neededBytes !== undefined && neededBytes <= workspaceBytes)
        return { bytes: Uint8Array.from(cached.bytes), workspaceBytes: neededBytes };
    }
    const candidates = this.#library.algorithms(problem, descriptors, {
      count: isWorthTiming ? numCandidates : 1,
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
        a: addressOf(args.b),
        b: addressOf(args.a),
        d: addressOf(args.c),
        beta: args.beta,
      },
    );
    if (timed === undefined) return candidates[0];
    this.#cache.set(cacheKey, { bytes: timed.algorithm.bytes, microseconds: timed.microseconds });
    return timed.algorithm;
  }
}

function describe({ m, n, k, lda, ldb, ldc, a, c }: MatmulArguments): string {
  return `m ${m}, n ${n}, k ${k}, row strides ${lda}, ${ldb}, ${ldc}, ${a.dtype} to ${c.dtype}`;
}
