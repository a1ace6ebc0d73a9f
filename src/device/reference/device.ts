/**
 * The reference backend: every operator as naive loops with float64 arithmetic and one rounding at the store. It is the
 * specification of the operator table, the oracle of the tests, and what runs where there is no compiler.
 *
 * Calls return when the work is done. It checks what the native backends trust: missing tensors, sizes, dtypes, disposal;
 * and fresh memory holds NaN.
 */
import { DisposedError, invariant, ShapeError } from "../../base/index.ts";
import type { Dtype } from "../../base/index.ts";
import type {
  Device,
  DeviceBuffer,
  DeviceGraph,
  MemoryStatistics,
  OpArguments,
  Readback,
  TensorArgument,
} from "../contract.ts";
import { ops, type OpName } from "../ops.ts";
import { activationKernels } from "./activation.ts";
import { adapterKernels } from "./adapter.ts";
import { checkArguments, referenceDtypes, type NamedArguments } from "./arguments.ts";
import { attentionKernels } from "./attention.ts";
import { cacheKernels } from "./cache.ts";
import { elementwiseKernels } from "./elementwise.ts";
import { embeddingKernels } from "./embedding.ts";
import type { ReferenceKernels } from "./kernels.ts";
import { logitsKernels } from "./logits.ts";
import { lossKernels } from "./loss.ts";
import { matmulKernels } from "./matmul.ts";
import { bytesOf, ReferenceBuffer } from "./memory.ts";
import { normKernels } from "./norm.ts";
import { optimizerKernels } from "./optimizer.ts";
import { quantiseKernels } from "./quantise.ts";
import { rotaryKernels } from "./rotary.ts";
import { rowAdapterKernels } from "./rowAdapter.ts";
import { samplingKernels } from "./sampling.ts";

/** Total over the operator table: a row without a kernel does not compile. */
const kernels: ReferenceKernels = {
  ...elementwiseKernels,
  ...embeddingKernels,
  ...matmulKernels,
  ...quantiseKernels,
  ...rowAdapterKernels,
  ...normKernels,
  ...rotaryKernels,
  ...attentionKernels,
  ...cacheKernels,
  ...activationKernels,
  ...lossKernels,
  ...adapterKernels,
  ...samplingKernels,
  ...logitsKernels,
  ...optimizerKernels,
};

export class ReferenceDevice implements Device {
  readonly kind = "reference";
  readonly description = "reference backend (TypeScript, one thread)";
  #liveBytes = 0;
  #peakLiveBytes = 0;
  #numLiveBuffers = 0;
  #recording: (() => void)[] | undefined;
  #isDisposed = false;

  allocate(byteLength: number): DeviceBuffer {
    this.#assertOpen();
    invariant(Number.isSafeInteger(byteLength) && byteLength >= 0, `allocate(${byteLength}) bytes`);
    const buffer = new ReferenceBuffer(this, byteLength, (freed) => {
      this.#liveBytes -= freed;
      this.#numLiveBuffers--;
    });
    this.#liveBytes += byteLength;
    this.#numLiveBuffers++;
    this.#peakLiveBytes = Math.max(this.#peakLiveBytes, this.#liveBytes);
    return buffer;
  }

  /** Throws also InvariantError and ShapeError, for arguments that no caller should give. */
  run<Name extends OpName>(name: Name, args: OpArguments<Name>): void {
    this.#assertOpen();
    checkArguments(name, args, this);
    const operands = this.#recording === undefined ? args : resolved(args);
    this.#queue(() => runKernel(name, operands));
  }

  supports(name: OpName, dtypes: Readonly<Partial<Record<string, Dtype>>>): boolean {
    this.#assertOpen();
    return Object.entries(dtypes).every(
      ([tensor, dtype]) =>
        dtype === undefined || (tensor in ops[name].tensors && referenceDtypes(name, tensor).includes(dtype)),
    );
  }

  upload(target: DeviceBuffer, byteOffset: number, bytes: Uint8Array): void {
    this.#assertNotRecording("an upload");
    this.#range(target, byteOffset, bytes.byteLength).set(bytes);
  }

  download(source: DeviceBuffer, byteOffset: number, into: Uint8Array): void {
    this.#assertNotRecording("a download");
    into.set(this.#range(source, byteOffset, into.byteLength));
  }

  readback(source: DeviceBuffer, byteOffset: number, byteLength: number): Readback {
    this.#assertNotRecording("a readback");
    const bytes = this.#range(source, byteOffset, byteLength).slice();
    return { isReady: true, wait: () => bytes };
  }

  copy(
    source: DeviceBuffer,
    sourceOffset: number,
    target: DeviceBuffer,
    targetOffset: number,
    byteLength: number,
  ): void {
    this.#assertOpen();
    const command = (): void =>
      this.#range(target, targetOffset, byteLength).set(this.#range(source, sourceOffset, byteLength));
    this.#range(source, sourceOffset, byteLength);
    this.#range(target, targetOffset, byteLength);
    this.#queue(command);
  }

  synchronize(): void {
    this.#assertOpen();
  }

  capture(record: () => void): DeviceGraph {
    this.#assertNotRecording("a second capture");
    const commands: (() => void)[] = [];
    this.#recording = commands;
    try {
      record();
    } finally {
      this.#recording = undefined;
    }
    let isDisposed = false;
    const dispose = (): void => {
      isDisposed = true;
      commands.length = 0;
    };
    return {
      replay: () => {
        this.#assertNotRecording("a replay");
        if (isDisposed) {
          throw new DisposedError("reference", "expected a graph in use, got one that was disposed");
        }
        for (const command of commands) command();
      },
      dispose,
      [Symbol.dispose]: dispose,
    };
  }

  memory(): MemoryStatistics {
    return {
      liveBytes: this.#liveBytes,
      peakLiveBytes: this.#peakLiveBytes,
      numLiveBuffers: this.#numLiveBuffers,
      reservedBytes: this.#liveBytes,
      peakReservedBytes: this.#peakLiveBytes,
    };
  }

  resetPeakMemory(): void {
    this.#peakLiveBytes = this.#liveBytes;
  }

  trimMemory(): void {
    // Freed buffers belong to the garbage collector.
  }

  dispose(): void {
    this.#isDisposed = true;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #queue(command: () => void): void {
    if (this.#recording === undefined) command();
    else this.#recording.push(command);
  }

  #range(buffer: DeviceBuffer, byteOffset: number, byteLength: number): Uint8Array {
    invariant(buffer.device === this, "a buffer of another device was given to the reference");
    const bytes = bytesOf(buffer);
    invariant(
      byteOffset >= 0 && byteLength >= 0 && byteOffset + byteLength <= bytes.byteLength,
      `bytes ${byteOffset} to ${byteOffset + byteLength} of a buffer of ${bytes.byteLength}`,
    );
    return bytes.subarray(byteOffset, byteOffset + byteLength);
  }

  #assertOpen(): void {
    if (this.#isDisposed) {
      throw new DisposedError("reference", "expected a device in use, got one that was disposed");
    }
  }

  #assertNotRecording(what: string): void {
    this.#assertOpen();
    invariant(this.#recording === undefined, `${what} inside of a capture`);
  }
}

/** The same arguments with their buffers looked up now: a graph outlives the tensors that it was recorded from. */
function resolved<Args extends object>(args: Args): Args {
  const entries = Object.entries(args).map(([name, value]: [string, unknown]) => [
    name,
    isTensor(value) ? placeOf(value) : value,
  ]);
  return Object.fromEntries(entries) as Args;
}

const isTensor = (value: unknown): value is TensorArgument =>
  typeof value === "object" && value !== null && "buffer" in value;
const placeOf = ({ buffer, byteOffset, dtype }: TensorArgument): TensorArgument => ({
  buffer,
  byteOffset,
  dtype,
});

/** Runs a kernel; an operand that does not fit its buffer is told with the names of the table. */
function runKernel<Name extends OpName>(name: Name, args: OpArguments<Name>): void {
  try {
    kernels[name](args);
  } catch (error) {
    if (!(error instanceof ShapeError)) throw error;
    const { tensor, mismatch } = error.fields;
    const named: NamedArguments = args;
    const tensorName = Object.keys(named).find((key) => named[key] === tensor);
    throw new ShapeError(`reference ${name}`, `${String(mismatch)} for ${String(tensorName)}`, {
      cause: error,
    });
  }
}
