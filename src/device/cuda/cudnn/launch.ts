/**
 * The attention operators through cuDNN, where it has them: bf16, sequences of one length, as many query as key rows. Keeps the
 * plans, by shape. Says no to everything else, which our own kernels then do.
 * NAUTILUS_ATTENTION=own never asks cuDNN; NAUTILUS_ATTENTION=cudnn insists: what cuDNN cannot do is then an error.
 */
import { ConfigError, invariant, messageOf, note, UnsupportedOpError } from "../../../base/index.ts";
import type { OpArguments, TensorArgument } from "../../contract.ts";
import { addressOf, type CudaKernels, type LaunchContext } from "../launcher.ts";
import type { CudaSession } from "../session.ts";
import { planBackward, planForward, type AttentionPlan, type AttentionShape } from "./attention.ts";
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
  const isCovered =
    args.cuSeqLens === undefined &&
    S === keyLength &&
    S >= leastLength &&
    B > 0 &&
    B * S === args.numRows &&
    D <= largestHeadDim &&
    [D, ...strides].every((value) => value % strideMultiple === 0);
  if (!isCovered) return undefined;
  const { qRowStride, kRowStride, vRowStride, oRowStride, numRows, scale } = args;
  const rest = { qRowStride, kRowStride, vRowStride, oRowStride, numRows, scale };
  return { B, S, H, G, D, ...rest, isCausal: args.causal === 1 };
}

const isBf16 = (tensors: readonly TensorArgument[]): boolean =>
  tensors.every(({ dtype }) => dtype === "bf16");

export class CudnnAttention {
  readonly #session: CudaSession;
  readonly #policy: AttentionPolicy;
  /** Undefined before the first use, null where there is no cuDNN. */
  #library: Cudnn | null | undefined;
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
    if (logSumExp !== undefined) addresses.push(addressOf(logSumExp));
    if (!areAligned(addresses.slice(0, 4))) return false;
    const hasLogSumExp = logSumExp !== undefined;
    const key = `forward ${Object.values(shape).join(" ")} ${hasLogSumExp}`;
    const found = this.#plan(key, (library) => planForward(library, shape, hasLogSumExp));
    if (found === undefined) return false;
    const { workspaceBytes } = found.plan;
    found.plan.run(found.ids, addresses, workspaceBytes === 0 ? 0 : context.workspace(workspaceBytes));
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
    const found = this.#plan(key, (library) => planBackward(library, shape, isDeterministic));
    if (found === undefined) return false;
    const { B, S, H, D } = shape;
    const rowSumBytes = aligned(B * H * S * 4);
    const dqSumBytes = isDeterministic ? 0 : aligned(B * H * S * D * 4);
    const totalBytes = rowSumBytes + dqSumBytes + found.plan.workspaceBytes;
    if (totalBytes > mostWorkspaceBytes) return false;
    const workspace = context.workspace(totalBytes);
    addresses.push(workspace);
    if (!isDeterministic) {
      addresses.push(workspace + rowSumBytes);
      // Before 9.6 the library leaves clearing to its caller.
      if (this.#library !== null && this.#library !== undefined && this.#library.version < 90_600)
        context.memset(workspace + rowSumBytes, 0, dqSumBytes);
    }
    found.plan.run(found.ids, addresses, workspace + rowSumBytes + dqSumBytes);
    return true;
  }

  /** Never throws. */
  dispose(): void {
    for (const found of this.#plans.values()) found?.plan.dispose();
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

  #plan(key: string, make: (library: Cudnn) => AttentionPlan): AttentionPlan | undefined {
    const known = this.#plans.get(key);
    if (known !== undefined) {
      this.#plans.delete(key);
      this.#plans.set(key, known);
      return known ?? undefined;
    }
    const library = this.#open();
    if (library === null) return undefined;
    const made = this.#make(library, make);
    if (this.#plans.size >= mostPlans) {
      const [oldest] = this.#plans.keys();
      invariant(oldest !== undefined, "a full cache without entries");
      this.#plans.get(oldest)?.plan.dispose();
      this.#plans.delete(oldest);
    }
    this.#plans.set(key, made);
    return made ?? undefined;
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
