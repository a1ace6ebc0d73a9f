/**
 * The CUDA device: the contract over a session, its memory, its launch context and cuBLASLt. Holds the lifetime of the parts;
 * what they do is theirs.
 * Invariants: every public method makes the GPU's context current first; one compute stream, in order; nothing here waits except
 * `download`, `synchronize`, `capture` and a readback's `wait`.
 */
import {
  DeviceError,
  DisposedError,
  invariant,
  ShapeError,
  UnsupportedOpError,
  type Dtype,
} from "../../base/index.ts";
import type {
  Device,
  DeviceBuffer,
  DeviceGraph,
  FileTransfer,
  MemoryStatistics,
  OpArguments,
  Readback,
  Tuning,
} from "../contract.ts";
import { ops, type OpName, type OpSpec } from "../ops.ts";
import { CudaBuffer } from "./buffer.ts";
import { CapturedWrites } from "./capturedWrites.ts";
import { CudaLaunchContext } from "./context.ts";
import { attentionPolicy, CudnnAttention } from "./cudnn/launch.ts";
import { readThreads, uploadFileRanges, type FileUploadOptions } from "./fileUpload.ts";
import { CudaGraph } from "./graph.ts";
import { cudaKernels, supportsDtypes } from "./kernels.ts";
import { addressOfBuffer, type CudaKernels, type LaunchContext } from "./launcher.ts";
import { CudaMatmul } from "./matmul.ts";
import { CudaMemory } from "./memory.ts";
import { Profiler } from "./profiler.ts";
import { CudaSession } from "./session.ts";
import { Staging } from "./staging.ts";

export interface CudaDeviceOptions {
  /** Number of the GPU, as CUDA_VISIBLE_DEVICES leaves them. */
  readonly index?: number | undefined;
  /** Bit-identical results from run to run: algorithms are not chosen by timing. */
  readonly deterministic?: boolean | undefined;
  /** Lets products of f32 round their inputs to 10 bits of mantissa, for many times the speed. */
  readonly allowTf32?: boolean | undefined;
}

/** Opens a GPU. Throws DeviceError that says what is missing and what brings it. */
export function createCudaDevice(options: CudaDeviceOptions = {}): CudaDevice {
  return new CudaDevice(options);
}

export class CudaDevice implements Device {
  readonly kind = "cuda";
  readonly description: string;
  readonly #session: CudaSession;
  readonly #memory: CudaMemory;
  readonly #context: CudaLaunchContext;
  readonly #matmul: CudaMatmul;
  readonly #attention: CudnnAttention;
  readonly #staging: Staging;
  readonly #profiler: Profiler | undefined;
  readonly #kernels: CudaKernels;
  /** Undefined: as many as fit the machine. */
  readonly #readThreads: number | undefined;
  #isDisposed = false;

  constructor(options: CudaDeviceOptions) {
    const policy = attentionPolicy(process.env);
    this.#readThreads = readThreads(process.env);
    this.#session = new CudaSession(options.index ?? 0);
    this.#attention = new CudnnAttention(this.#session, policy);
    this.#memory = new CudaMemory(this.#session);
    this.#matmul = this.#openMatmul(options);
    this.#context = new CudaLaunchContext(this.#session, this.#memory, {
      isDeterministic: options.deterministic ?? false,
    });
    this.#staging = new Staging(this.#session);
    this.#profiler = Profiler.fromEnvironment(this.#session);
    this.#kernels = {
      ...cudaKernels,
      matmul: this.#matmul.run,
      matmulScaled: this.#matmul.runScaled,
      lowRankBackward: this.#matmul.runLowRankBackward,
      ...this.#attention.kernels(cudaKernels),
    };
    this.description = this.#session.description;
  }

  /**
   * Compiles the kernels that are not cached yet, in parallel, so that no step waits for the compiler; those that few models need wait for
   * their first launch. Throws DeviceError.
   */
  async prepareKernels(): Promise<void> {
    await this.#context.prepareKernels();
  }

  /** The profiler that NAUTILUS_PROFILE turned on. */
  get profiler(): Profiler | undefined {
    return this.#profiler;
  }

  /** For launching kernels that are no operators, as tests and benches do. */
  get launchContext(): LaunchContext {
    this.#enter();
    return this.#context;
  }

  allocate(byteLength: number): CudaBuffer {
    invariant(Number.isSafeInteger(byteLength) && byteLength >= 0, `allocate(${byteLength})`);
    this.#enter();
    const block = this.#memory.allocate(byteLength);
    return new CudaBuffer(this, byteLength, { block, release: this.#memory.release });
  }

  run<Name extends OpName>(name: Name, args: OpArguments<Name>): void {
    this.#enter();
    const launch = this.#kernels[name];
    if (launch === undefined) throw new UnsupportedOpError("cuda", `expected a kernel for ${name}, got none`);
    const profiler = this.#profiler;
    if (this.#context.capturedWrites !== undefined) {
      this.#context.capturedWrites.begin(name, args);
      launch(this.#context, args);
    } else if (profiler === undefined) launch(this.#context, args);
    else {
      const label = profiler.byShape ? shapeLabel(name, args) : name;
      profiler.measure(label, flopsOf(name, args), () => launch(this.#context, args));
    }
  }

  supports(name: OpName, dtypes: Readonly<Partial<Record<string, Dtype>>>): boolean {
    return this.#kernels[name] !== undefined && supportsDtypes(name, dtypes);
  }

  upload(target: DeviceBuffer, byteOffset: number, bytes: Uint8Array): void {
    this.#enter();
    this.#refuseInCapture("upload");
    this.#staging.upload(place(target, byteOffset, bytes.byteLength), bytes);
  }

  /** NAUTILUS_READ_THREADS is the number of threads that read; off leaves files to one thread's way through `upload`, to compare. */
  uploadFiles(
    transfers: readonly FileTransfer[],
    options: FileUploadOptions = { numThreads: this.#readThreads },
  ): FileTransfer[] {
    this.#enter();
    this.#refuseInCapture("uploadFiles");
    const uploads = transfers.map(({ target, byteOffset, ...range }) => ({
      ...range,
      address: place(target, byteOffset, range.byteLength),
    }));
    return uploadFileRanges(this.#session, uploads, options).map((index) => transfers[index]);
  }

  download(source: DeviceBuffer, byteOffset: number, into: Uint8Array): void {
    this.#enter();
    this.#refuseInCapture("download");
    this.#staging.download(place(source, byteOffset, into.byteLength), into);
  }

  readback(source: DeviceBuffer, byteOffset: number, byteLength: number): Readback {
    this.#enter();
    this.#refuseInCapture("readback");
    return this.#staging.readback(place(source, byteOffset, byteLength), byteLength);
  }

  copy(
    source: DeviceBuffer,
    sourceOffset: number,
    target: DeviceBuffer,
    targetOffset: number,
    byteLength: number,
  ): void {
    this.#enter();
    const from = place(source, sourceOffset, byteLength);
    this.#context.capturedWrites?.add(target);
    this.#context.copy(place(target, targetOffset, byteLength), from, byteLength);
  }

  synchronize(): void {
    this.#enter();
    this.#refuseInCapture("synchronize");
    this.#session.synchronize();
  }

  capture(record: () => void): DeviceGraph {
    this.#enter();
    this.#refuseInCapture("capture");
    const profiler = this.#profiler;
    const graph: CudaGraph = CudaGraph.capture(this.#session, this.#memory, {
      record: () => {
        this.#context.capturedWrites = new CapturedWrites();
        try {
          record();
        } finally {
          this.#context.capturedWrites = undefined;
        }
      },
      onReplay: (queue) => {
        if (profiler === undefined) queue();
        else profiler.measure(`graph of ${graph.numNodes}`, 0, queue);
      },
    });
    return graph;
  }

  withTuning<Result>(tuning: Tuning, body: () => Result): Result {
    const before = this.#context.tuning;
    this.#context.tuning = tuning;
    try {
      return body();
    } finally {
      this.#context.tuning = before;
    }
  }

  memory(): MemoryStatistics {
    this.#enter();
    return this.#memory.statistics();
  }

  resetPeakMemory(): void {
    this.#memory.resetPeak();
  }

  trimMemory(): void {
    this.#enter();
    this.#refuseInCapture("trimMemory");
    this.#session.synchronize();
    this.#memory.trim();
  }

  /** Waits for queued work and gives everything back; buffers and graphs of the device are dead afterwards. */
  dispose(): void {
    if (this.#isDisposed) return;
    this.#session.activate();
    // A device that was lost cannot be waited for, and is disposed all the same.
    this.#session.functions.cuStreamSynchronize(this.#session.stream);
    this.#profiler?.dispose();
    this.#isDisposed = true;
    this.#attention.dispose();
    this.#matmul.dispose();
    this.#context.dispose();
    this.#staging.dispose();
    this.#memory.dispose();
    this.#session.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** The library may be missing; then nothing of the GPU is kept. */
  #openMatmul(options: CudaDeviceOptions): CudaMatmul {
    try {
      return new CudaMatmul(this.#session, this.#memory, { allowsTf32: options.allowTf32 ?? false });
    } catch (error) {
      this.#memory.dispose();
      this.#session.dispose();
      throw error;
    }
  }

  #enter(): void {
    if (this.#isDisposed) throw new DisposedError("cuda", "expected a live device, got one after dispose");
    this.#session.activate();
  }

  #refuseInCapture(call: string): void {
    if (this.#context.isCapturing)
      throw new DeviceError("cuda", `expected only operators while a graph is captured, got ${call}`);
  }
}

/** The address of a range of a buffer. Throws DisposedError, ShapeError. */
function place(buffer: DeviceBuffer, byteOffset: number, byteLength: number): number {
  if (byteOffset < 0 || byteOffset + byteLength > buffer.byteLength)
    throw new ShapeError(
      "cuda",
      `expected a range within ${buffer.byteLength} bytes, got ${byteLength} bytes at ${byteOffset}`,
    );
  return addressOfBuffer(buffer) + byteOffset;
}

function shapeLabel<Name extends OpName>(name: Name, args: OpArguments<Name>): string {
  const spec: OpSpec = ops[name];
  const values = args as Readonly<Record<string, unknown>>;
  return `${name} ${spec.integers.map((integer) => String(values[integer])).join(" ")}`;
}

function flopsOf<Name extends OpName>(name: Name, args: OpArguments<Name>): number {
  if (name !== "matmul" && name !== "matmulScaled") return 0;
  const { m, n, k } = args as OpArguments<"matmul" | "matmulScaled">;
  return 2 * m * n * k;
}
