/**
 * The attention operators through cuDNN, where it has them: bf16, as many query as key rows, sequences of one length or packed. Keeps the
 * plans, by shape. Says no to everything else, which our own kernels then do.
 * NAUTILUS_ATTENTION=own never asks cuDNN; NAUTILUS_ATTENTION=cudnn insists: what cuDNN cannot do is then an error.
 */
import { ConfigError, invariant, messageOf, note, UnsupportedOpError } from "../../../base/index.ts";
import type { OpArguments, TensorArgument } from "../../contract.ts";
import {
  address,
  addressOf,
  i32,
  i64,
  kernel,
  pointer,
  type CudaKernels,
  type LaunchContext,
} from "../launcher.ts";
import type { CudaSession } from "../session.ts";
import {
  backwardScratch,
  layoutTensors,
  needsLengths,
  planBackward,
  planForward,
  type AttentionPlan,
  type AttentionShape,
} from "./attention.ts";
import { tensorAlignmentBytes } from "./graph.ts";
import { Cudnn } from "./library.ts";

type Forward = OpArguments<"attentionForward">;
type Backward = OpArguments<"attentionBackward">;
export type AttentionPolicy = "auto" | "own" | "cudnn";

/** Making a plan takes longer than attention over shorter sequences ever will. */
const leastRows = 512;
const largestHeadDim = 128;
/** Elements: 16 bytes of bf16. */
const strideMultiple = 8;
/** The deterministic backward pass writes all scores to memory; beyond this our own kernel does it. */
const mostWorkspaceBytes = 4 * 2 ** 30;
const mostPlans = 64;
const workspaceAlignment = 256;

/** The first version whose engines take packed sequences with 64-bit starts and the layouts used here. */
const oldestPackedVersion = 91_000;
const hopper = 90;
/** Packed heads whose size is no multiple are refused: a known fault of the library. */
const packedHeadDimMultiple = 16;

const sequenceLayout = kernel({ file: "attention_layout.cu", entry: "sequence_layout" });

const aligned = (bytes: number): number => Math.ceil(bytes / workspaceAlignment) * workspaceAlignment;

/** The policy that NAUTILUS_ATTENTION names. Throws ConfigError. */
export function attentionPolicy(environment: Readonly<Record<string, string | undefined>>): AttentionPolicy {
  const value = environment["NAUTILUS_ATTENTION"] ?? "auto";
  if (value === "auto" || value === "own" || value === "cudnn") return value;
  throw new ConfigError("cuda", `expected NAUTILUS_ATTENTION to be auto, own or cudnn, got ${value}`);
}

/** The shape, if the graphs cover it. */
function shapeOf(args: Forward | Backward, leastLength: number): AttentionShape | undefined {
  const { numSequences: B, queryLength: S, keyLength, numHeads: H, numKvHeads: G, headDim: D } = args;
  const strides = [args.qRowStride, args.kRowStride, args.vRowStride, args.oRowStride];
  const isPacked = args.cuSeqLens !== undefined;
  const isCovered =
    S === keyLength &&
    S >= leastLength &&
    B > 0 &&
    (isPacked ? D % packedHeadDimMultiple === 0 : B * S === args.numRows) &&
    D <= largestHeadDim &&
    [D, ...strides].every((value) => value % strideMultiple === 0);
  if (!isCovered) return undefined;
  const { qRowStride, kRowStride, vRowStride, oRowStride, numRows, scale } = args;
  const rest = { qRowStride, kRowStride, vRowStride, oRowStride, numRows, scale };
  return { B, S, H, G, D, ...rest, isCausal: args.causal === 1, isPacked };
}

interface FoundPlan extends AttentionPlan {
  readonly library: Cudnn;
}

/** Lengths i32 (B), then starts i64 (5, B + 1). */
function layoutBytesOf({ B }: AttentionShape): number {
  return aligned(B * 4) + aligned(5 * (B + 1) * 8);
}

/** Queues the kernel that writes lengths and starts at `memory`; their addresses in the order of `layoutTensors`. */
function queueLayout(
  context: LaunchContext,
  memory: number,
  options: { shape: AttentionShape; cuSeqLens: TensorArgument | undefined },
): readonly number[] {
  const { shape, cuSeqLens } = options;
  const { B, S, qRowStride, kRowStride, vRowStride, oRowStride, isPacked } = shape;
  const starts = memory + aligned(B * 4);
  context.launch(sequenceLayout, { grid: Math.ceil((B + 1) / 256), block: 256 }, [
    pointer(cuSeqLens),
    address(memory),
    address(starts),
    ...[qRowStride, kRowStride, vRowStride, oRowStride].map(i64),
    i32(B),
    i32(S),
  ]);
  const numStarts = isPacked ? layoutTensors.length - 2 : 0;
  return [memory, memory, ...Array.from({ length: numStarts }, (_, index) => starts + index * (B + 1) * 8)];
}

const isBf16 = (tensors: readonly TensorArgument[]): boolean =>
  tensors.every(({ dtype }) => dtype === "bf16");

export class CudnnAttention {
  readonly #session: CudaSession;
  readonly #policy: AttentionPolicy;
  /** Undefined before the first use, null where there is no cuDNN. */
  #library: Cudnn | null | undefined;
  /** Keys of plans that graphs were captured with, and such plans that are out of use: a graph may need a plan's kernels. */
  readonly #captured = new Set<string>();
  readonly #retired: AttentionPlan[] = [];
  /** Least recently used first; null marks a shape that cuDNN refused. */
  readonly #plans = new Map<string, AttentionPlan | null>();

  constructor(session: CudaSession, policy: AttentionPolicy) {
    this.#session = session;
    this.#policy = policy;
    if (policy === "own") this.#library = null;
  }

  /** The operators: through cuDNN, else by our `own` kernels, which every machine has. */
  kernels(own: CudaKernels): CudaKernels {
    const { attentionForward, attentionBackward } = own;
    const kernels: { -readonly [Name in keyof CudaKernels]: CudaKernels[Name] } = {};
    if (attentionForward !== undefined || this.#policy === "cudnn")
      kernels.attentionForward = (context, args) => {
        if (!this.forward(context, args)) this.#checked("attentionForward", attentionForward)(context, args);
      };
    if (attentionBackward !== undefined || this.#policy === "cudnn")
      kernels.attentionBackward = (context, args) => {
        if (!this.backward(context, args))
          this.#checked("attentionBackward", attentionBackward)(context, args);
      };
    return kernels;
  }

  /** Queues attentionForward and gives true; false where cuDNN does not cover the case. */
  forward(context: LaunchContext, args: Forward): boolean {
    const { q, k, v, o, logSumExp } = args;
    const shape = shapeOf(args, this.#leastLength);
    if (shape === undefined || !isBf16([q, k, v, o])) return false;
    const addresses = [q, k, v, o].map(addressOf);
    if (!areAligned(addresses)) return false;
    const key = `forward ${Object.values(shape).join(" ")}`;
    // Always with the statistics: without them the library has no engine for uniform lengths.
    const found = this.#plan(context, { key, shape }, (library) => planForward(library, shape, true));
    if (found === undefined) return false;
    const statisticsBytes = logSumExp === undefined ? aligned(4 * args.numHeads * args.numRows) : 0;
    const layoutBytes = statisticsBytes + (shape.isPacked ? layoutBytesOf(shape) : 0);
    const totalBytes = layoutBytes + found.plan.workspaceBytes;
    if (totalBytes > mostWorkspaceBytes) return false;
    const workspace = totalBytes === 0 ? 0 : context.workspace(totalBytes);
    addresses.push(logSumExp === undefined ? workspace : addressOf(logSumExp));
    if (shape.isPacked)
      addresses.push(
        ...queueLayout(context, workspace + statisticsBytes, { shape, cuSeqLens: args.cuSeqLens }),
      );
    found.plan.run(found.ids, addresses, workspace + layoutBytes);
    return true;
  }

  /** Queues attentionBackward and gives true; false where cuDNN does not cover the case. */
  backward(context: LaunchContext, args: Backward): boolean {
    const { q, k, v, o, doutput, logSumExp, dq, dk, dv } = args;
    const shape = shapeOf(args, this.#leastLength);
    if (shape === undefined || !isBf16([q, k, v, o, doutput, dq, dk, dv])) return false;
    const addresses = [q, k, v, o, doutput, logSumExp, dq, dk, dv].map(addressOf);
    if (!areAligned(addresses.filter((_, index) => index !== 5))) return false;
    const { isDeterministic } = context;
    const key = `backward ${Object.values(shape).join(" ")} ${isDeterministic}`;
    const found = this.#plan(context, { key, shape }, (library) =>
      planBackward(library, shape, isDeterministic),
    );
    if (found === undefined) return false;
    const { library } = found;
    const hasLengths = needsLengths(library, shape);
    const { rowSumBytes, dqSumBytes, perHeadBytes } = backwardScratch(shape, isDeterministic);
    const dkBytes = (perHeadBytes * shape.kRowStride) / (shape.kRowStride + shape.vRowStride);
    const parts = [rowSumBytes, dqSumBytes, dkBytes, perHeadBytes - dkBytes];
    const layoutBytes = hasLengths ? layoutBytesOf(shape) : 0;
    const scratchBytes = parts.reduce((sum, bytes) => sum + aligned(bytes), 0);
    const totalBytes = scratchBytes + layoutBytes + found.plan.workspaceBytes;
    if (totalBytes > mostWorkspaceBytes) return false;
    let next = context.workspace(totalBytes);
    for (const [index, bytes] of parts.entries()) {
      if (bytes === 0) continue;
      addresses.push(next);
      // Before 9.6 the library leaves clearing dqSum to its caller.
      if (index === 1 && library.version < 90_600) context.memset(next, 0, bytes);
      next += aligned(bytes);
    }
    if (hasLengths) addresses.push(...queueLayout(context, next, { shape, cuSeqLens: args.cuSeqLens }));
    found.plan.run(found.ids, addresses, next + layoutBytes);
    return true;
  }

  /** Never throws. */
  dispose(): void {
    for (const found of [...this.#plans.values(), ...this.#retired.splice(0)]) found?.plan.dispose();
    this.#plans.clear();
    this.#library?.dispose();
    this.#library = null;
  }

  get #leastLength(): number {
    return this.#policy === "cudnn" ? 1 : leastRows;
  }

  /** `own`, unless the policy insists on cuDNN. Throws UnsupportedOpError. */
  #checked<Launch>(name: string, own: Launch | undefined): Launch {
    if (own !== undefined && this.#policy !== "cudnn") return own;
    throw new UnsupportedOpError("cuda", `expected a case of ${name} that cuDNN covers, got another`, {
      hint: "NAUTILUS_ATTENTION=auto lets our own kernel do the rest",
    });
  }

  #plan(
    context: LaunchContext,
    { key, shape }: { key: string; shape: AttentionShape },
    make: (library: Cudnn) => AttentionPlan,
  ): FoundPlan | undefined {
    const library = this.#open();
    if (library === null) return undefined;
    if (shape.isPacked && (context.computeCapability < hopper || library.version < oldestPackedVersion))
      return undefined;
    let found = this.#plans.get(key);
    if (found === undefined) {
      found = this.#make(library, make);
      if (this.#plans.size >= mostPlans) this.#forgetOldest();
    } else this.#plans.delete(key);
    this.#plans.set(key, found);
    if (context.isCapturing) this.#captured.add(key);
    return found === null ? undefined : { ...found, library };
  }

  #forgetOldest(): void {
    const [oldest] = this.#plans.keys();
    invariant(oldest !== undefined, "a full cache without entries");
    const found = this.#plans.get(oldest) ?? null;
    if (found !== null && this.#captured.has(oldest)) this.#retired.push(found);
    else found?.plan.dispose();
    this.#plans.delete(oldest);
    this.#captured.delete(oldest);
  }

  #make(library: Cudnn, make: (library: Cudnn) => AttentionPlan): AttentionPlan | null {
    try {
      return make(library);
    } catch (error) {
      if (this.#policy === "cudnn") throw error;
      note(`attention without cuDNN: ${messageOf(error)}`);
      return null;
    }
  }

  #open(): Cudnn | null {
    if (this.#library !== undefined) return this.#library;
    try {
      const library = new Cudnn(this.#session.driver.majors);
      library.start(this.#session.stream);
      this.#library = library;
    } catch (error) {
      if (this.#policy === "cudnn") throw error;
      note(`attention without cuDNN: ${messageOf(error)}`);
      this.#library = null;
    }
    return this.#library;
  }
}

const areAligned = (addresses: readonly number[]): boolean =>
  addresses.every((address) => address % tensorAlignmentBytes === 0);
