/**
 * The CUDA backend's operators and kernels as a Device on the CPU, for machines without a GPU: the same launchers, the same .cu files.
 * Of matrix products, those of low rank and those of few rows of codes alone are there: the others are cuBLASLt's. Knows nothing of the driver.
 */
import type { Dtype } from "../../../src/base/index.ts";
import { UnsupportedOpError } from "../../../src/base/index.ts";
import { CudaBuffer } from "../../../src/device/cuda/buffer.ts";
import { cudaKernels, supportsDtypes } from "../../../src/device/cuda/kernels.ts";
import {
  launchLowRankBackward,
  launchThinProduct,
  productsOf,
} from "../../../src/device/cuda/launch/thinProduct.ts";
import { runFewScaledRows } from "../../../src/device/cuda/launch/scaledProduct.ts";
import { addressOfBuffer, type CudaKernels } from "../../../src/device/cuda/launcher.ts";
import { NativeWords } from "../../../src/device/cuda/native.ts";
import { viewMemory } from "../../../src/device/ffi.ts";
import type {
  Device,
  DeviceBuffer,
  DeviceGraph,
  MemoryStatistics,
  OpArguments,
  OpName,
  Readback,
} from "../../../src/device/index.ts";
import { EmulatedContext } from "./context.ts";

const multiply: NonNullable<CudaKernels["matmul"]> = (context, args) => {
  if (args.m > 0 && args.n > 0 && !launchThinProduct(context, args))
    throw new UnsupportedOpError("emulator", "expected a product of low rank, got one for the library");
};
const kernels: CudaKernels = {
  ...cudaKernels,
  matmul: multiply,
  matmulScaled: (context, args) => {
    if (args.m > 0 && args.n > 0 && !runFewScaledRows(context, args))
      throw new UnsupportedOpError("emulator", "expected a product of few rows, got one for the library");
  },
  lowRankBackward: (context, args) => {
    if (launchLowRankBackward(context, args)) return;
    for (const product of productsOf(args)) multiply(context, product);
  },
};

export class EmulatedCudaDevice implements Device {
  readonly kind = "cuda";
  readonly description = "CUDA kernels emulated on the CPU";
  readonly context = new EmulatedContext();
  readonly #memory = new Map<number, NativeWords>();
  readonly #statistics: MemoryStatistics = {
    liveBytes: 0,
    peakLiveBytes: 0,
    numLiveBuffers: 0,
    reservedBytes: 0,
    peakReservedBytes: 0,
  };

  allocate(byteLength: number): DeviceBuffer {
    const words = new NativeWords(Math.ceil((byteLength + 256) / 8));
    const address = Math.ceil(words.address / 256) * 256;
    this.#memory.set(address, words);
    this.#statistics.liveBytes += byteLength;
    this.#statistics.numLiveBuffers++;
    return new CudaBuffer(this, byteLength, {
      block: { address, byteLength },
      release: () => {
        this.#memory.delete(address);
        this.#statistics.liveBytes -= byteLength;
        this.#statistics.numLiveBuffers--;
      },
    });
  }

  run<Name extends OpName>(name: Name, args: OpArguments<Name>): void {
    const launch = kernels[name];
    if (launch === undefined)
      throw new UnsupportedOpError("emulator", `expected a kernel for ${name}, got none`);
    launch(this.context, args);
  }

  supports(name: OpName, dtypes: Readonly<Partial<Record<string, Dtype>>>): boolean {
    return kernels[name] !== undefined && supportsDtypes(name, dtypes);
  }

  upload(target: DeviceBuffer, byteOffset: number, bytes: Uint8Array): void {
    this.#bytes(target, byteOffset, bytes.byteLength).set(bytes);
  }

  download(source: DeviceBuffer, byteOffset: number, into: Uint8Array): void {
    into.set(this.#bytes(source, byteOffset, into.byteLength));
  }

  readback(source: DeviceBuffer, byteOffset: number, byteLength: number): Readback {
    const bytes = this.#bytes(source, byteOffset, byteLength).slice();
    return { isReady: true, wait: () => bytes };
  }

  copy(
    source: DeviceBuffer,
    sourceOffset: number,
    target: DeviceBuffer,
    targetOffset: number,
    byteLength: number,
  ): void {
    this.context.copy(
      addressOfBuffer(target) + targetOffset,
      addressOfBuffer(source) + sourceOffset,
      byteLength,
    );
  }

  synchronize(): void {}

  capture(record: () => void): DeviceGraph {
    const work: (() => void)[] = [];
    this.context.recorded = work;
    try {
      record();
    } finally {
      this.context.recorded = undefined;
    }
    const replay = (): void => {
      for (const step of work) step();
    };
    return { replay, dispose: () => {}, [Symbol.dispose]: () => {} };
  }

  memory(): MemoryStatistics {
    return { ...this.#statistics };
  }

  resetPeakMemory(): void {}

  trimMemory(): void {}

  dispose(): void {}

  [Symbol.dispose](): void {}

  #bytes(buffer: DeviceBuffer, byteOffset: number, byteLength: number): Uint8Array {
    if (byteLength === 0) return new Uint8Array(0);
    return new Uint8Array(viewMemory(addressOfBuffer(buffer) + byteOffset, byteLength));
  }
}
