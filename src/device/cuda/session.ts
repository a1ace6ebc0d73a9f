/**
 * One opened GPU: its primary context, the stream that all work is queued in, events, and the checked call path. What the parts
 * of the backend share. Knows nothing of buffers, kernels or operators.
 * Invariant: before a driver call, the GPU's context is the thread's current one (`activate`).
 */
import { DeviceError, formatBytes } from "../../base/index.ts";
import { CudaDriver, formatCudaVersion, type DriverFunctions } from "./driver.ts";
import { cudaNotReady } from "./status.ts";

/** The oldest GPUs that the kernels are written for: A100. */
const oldestCapability = 80;
const nonBlockingStream = 1;
export const eventWithoutTiming = 2;

/** The context that is current in this thread. */
let currentContext = 0;

export class CudaSession {
  readonly driver: CudaDriver;
  readonly functions: DriverFunctions;
  readonly index: number;
  /** For messages: "GPU 0 (NVIDIA H200)". */
  readonly label: string;
  readonly name: string;
  readonly totalBytes: number;
  readonly computeCapability: number;
  readonly multiprocessorCount: number;
  readonly threadsPerMultiprocessor: number;
  readonly sharedMemoryLimit: number;
  readonly l2CacheBytes: number;
  readonly stream: number;
  readonly #context: number;

  /** Throws DeviceError: no driver, no such GPU, a GPU that is too old or held by another process. */
  constructor(index: number) {
    this.driver = CudaDriver.open();
    this.functions = this.driver.functions;
    const { driver, functions } = this;
    const { deviceCount } = driver;
    if (!Number.isInteger(index) || index < 0 || index >= deviceCount)
      throw new DeviceError("cuda", `expected a GPU number below ${deviceCount}, got ${index}`, {
        hint: "'nautilus doctor' lists the GPUs",
      });
    this.index = index;
    this.name = driver.deviceName(index);
    this.label = `GPU ${index} (${this.name})`;
    this.totalBytes = driver.deviceTotalBytes(index);
    this.computeCapability =
      driver.deviceAttribute(index, "capabilityMajor") * 10 +
      driver.deviceAttribute(index, "capabilityMinor");
    if (this.computeCapability < oldestCapability || driver.deviceAttribute(index, "virtualMemory") === 0)
      throw new DeviceError(
        "cuda",
        `expected a GPU of compute capability 8.0 or later with virtual memory, got ${this.label} of ${this.capabilityText}`,
        { hint: "A100, H100, H200, RTX 30 and later will do" },
      );
    this.multiprocessorCount = driver.deviceAttribute(index, "multiprocessorCount");
    this.threadsPerMultiprocessor = driver.deviceAttribute(index, "threadsPerMultiprocessor");
    this.sharedMemoryLimit = driver.deviceAttribute(index, "sharedMemoryPerBlock");
    this.l2CacheBytes = driver.deviceAttribute(index, "l2CacheBytes");
    const { out } = driver;
    this.check("cuDevicePrimaryCtxRetain", functions.cuDevicePrimaryCtxRetain(out.address, index));
    this.#context = out.word(0);
    this.activate();
    this.check("cuStreamCreate", functions.cuStreamCreate(out.address, nonBlockingStream));
    this.stream = out.word(0);
  }

  get capabilityText(): string {
    return `compute capability ${Math.floor(this.computeCapability / 10)}.${this.computeCapability % 10}`;
  }

  get description(): string {
    const memory = formatBytes(this.totalBytes);
    return `${this.name}, ${memory}, ${this.capabilityText}, CUDA ${formatCudaVersion(this.driver.version)} driver`;
  }

  /** Makes this GPU's context the thread's current one. */
  activate(): void {
    if (currentContext === this.#context) return;
    this.check("cuCtxSetCurrent", this.functions.cuCtxSetCurrent(this.#context));
    currentContext = this.#context;
  }

  /** Throws DeviceError or OutOfMemoryError naming `call`, unless `status` is success. */
  check(call: string, status: number): void {
    if (status !== 0) this.driver.check(call, status, this.label);
  }

  synchronize(): void {
    this.check("cuStreamSynchronize", this.functions.cuStreamSynchronize(this.stream));
  }

  createEvent(withTiming: boolean): number {
    const { out } = this.driver;
    this.check(
      "cuEventCreate",
      this.functions.cuEventCreate(out.address, withTiming ? 0 : eventWithoutTiming),
    );
    return out.word(0);
  }

  isEventDone(event: number): boolean {
    const status = this.functions.cuEventQuery(event);
    if (status === cudaNotReady) return false;
    this.check("cuEventQuery", status);
    return true;
  }

  /** Milliseconds between two recorded events that are done. */
  elapsedMs(start: number, end: number): number {
    const { out } = this.driver;
    this.check("cuEventElapsedTime", this.functions.cuEventElapsedTime(out.address, start, end));
    return out.f32[0];
  }

  /** Never throws. */
  dispose(): void {
    this.functions.cuStreamDestroy_v2(this.stream);
    this.functions.cuDevicePrimaryCtxRelease_v2(this.index);
    if (currentContext === this.#context) currentContext = 0;
  }
}
