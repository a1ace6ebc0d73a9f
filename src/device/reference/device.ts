/**
 * The reference backend: every operator as naive loops with float64 arithmetic and one rounding at the store. It is the
 * specification of the operator table, the oracle of the tests, and what runs where there is no compiler.
 */
import type { Dtype } from "../../base/index.ts";
import type {
  Device,
  DeviceBuffer,
  DeviceGraph,
  MemoryStatistics,
  OpArguments,
  Readback,
} from "../contract.ts";
import type { OpName } from "../ops.ts";
import { activationKernels } from "./activation.ts";
import { attentionKernels } from "./attention.ts";
import { elementwiseKernels } from "./elementwise.ts";
import { embeddingKernels } from "./embedding.ts";
import type { ReferenceKernels } from "./kernels.ts";
import { lossKernels } from "./loss.ts";
import { matmulKernels } from "./matmul.ts";
import { bytesOf, ReferenceBuffer } from "./memory.ts";
import { normKernels } from "./norm.ts";
import { optimizerKernels } from "./optimizer.ts";
import { samplingKernels } from "./sampling.ts";

const kernels: ReferenceKernels = {
  ...elementwiseKernels,
  ...embeddingKernels,
  ...matmulKernels,
  ...normKernels,
  ...attentionKernels,
  ...activationKernels,
  ...lossKernels,
  ...samplingKernels,
  ...optimizerKernels,
};

export class ReferenceDevice implements Device {
  readonly kind = "reference";
  readonly description = "reference backend (TypeScript, one thread)";
  #liveBytes = 0;
  #peakLiveBytes = 0;
  #numLiveBuffers = 0;
  #recording: (() => void)[] | undefined;

  allocate(byteLength: number): DeviceBuffer {
    this.#liveBytes += byteLength;
    this.#numLiveBuffers++;
    this.#peakLiveBytes = Math.max(this.#peakLiveBytes, this.#liveBytes);
    return new ReferenceBuffer(this, byteLength, (freed) => {
      this.#liveBytes -= freed;
      this.#numLiveBuffers--;
    });
  }

  run<Name extends OpName>(name: Name, args: OpArguments<Name>): void {
    this.#queue(() => kernels[name](args));
  }

  supports(_name: OpName, dtypes: Readonly<Partial<Record<string, Dtype>>>): boolean {
    return Object.values(dtypes).every((dtype) => dtype !== undefined);
  }

  upload(target: DeviceBuffer, byteOffset: number, bytes: Uint8Array): void {
    const kept = this.#recording === undefined ? bytes : bytes.slice();
    this.#queue(() => bytesOf(target).set(kept, byteOffset));
  }

  download(source: DeviceBuffer, byteOffset: number, into: Uint8Array): void {
    into.set(bytesOf(source).subarray(byteOffset, byteOffset + into.byteLength));
  }

  readback(source: DeviceBuffer, byteOffset: number, byteLength: number): Readback {
    const bytes = bytesOf(source).slice(byteOffset, byteOffset + byteLength);
    return { isReady: true, wait: () => bytes };
  }

  copy(
    source: DeviceBuffer,
    sourceOffset: number,
    target: DeviceBuffer,
    targetOffset: number,
    byteLength: number,
  ): void {
    this.#queue(() =>
      bytesOf(target).set(bytesOf(source).subarray(sourceOffset, sourceOffset + byteLength), targetOffset),
    );
  }

  synchronize(): void {
    // Nothing is ever under way.
  }

  capture(record: () => void): DeviceGraph {
    const commands: (() => void)[] = [];
    const previous = this.#recording;
    this.#recording = commands;
    try {
      record();
    } finally {
      this.#recording = previous;
    }
    const dispose = (): void => {
      commands.length = 0;
    };
    return {
      replay: () => {
        for (const command of commands) command();
      },
      dispose,
      [Symbol.dispose]: dispose,
    };
  }

  #queue(command: () => void): void {
    if (this.#recording === undefined) command();
    else this.#recording.push(command);
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
    this.#recording = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
