/**
 * Choosing a device: the one place that names the backends. They are loaded when they are asked for, so that a program
 * without a GPU or a compiler never touches their native parts.
 */
import { ConfigError, messageOf, warn } from "../base/index.ts";
import type { Device, DeviceKind } from "./contract.ts";
import type { CudaDescription } from "./cuda/index.ts";

export interface OpenDeviceOptions {
  /** `auto`: CUDA where there is a card, else the CPU kernels, else (no compiler) the reference backend with a warning. */
  readonly kind?: DeviceKind | "auto" | undefined;
  /** Threads of the CPU kernels. */
  readonly threads?: number | undefined;
  /** Number of the GPU. */
  readonly index?: number | undefined;
  /** On a GPU: the same bits from run to run, also where that is slower. */
  readonly deterministic?: boolean | undefined;
}

interface Backend {
  /** Whether it is worth trying to open it without being asked; never throws. */
  isPresent(): Promise<boolean>;
  open(options: OpenDeviceOptions): Promise<Device>;
}

/** In the order that `auto` tries. */
const backends: Partial<Record<DeviceKind, Backend>> = {
  cuda: {
    isPresent: async () => (await import("./cuda/index.ts")).isCudaPresent(),
    open: async ({ index, deterministic }) => {
      const { createCudaDevice } = await import("./cuda/index.ts");
      const device = createCudaDevice({ index, deterministic });
      await device.prepareKernels();
      return device;
    },
  },
  cpu: {
    isPresent: () => Promise.resolve(true),
    open: async ({ threads }) => (await import("./cpu/index.ts")).createCpuDevice({ threads }),
  },
  reference: {
    isPresent: () => Promise.resolve(true),
    open: async () => (await import("./reference/index.ts")).createReferenceDevice(),
  },
};

/** Opens a device. Throws DeviceError where the kind that was asked for cannot be had, ConfigError for options that cannot be. */
export async function openDevice(options: OpenDeviceOptions = {}): Promise<Device> {
  const kind = options.kind ?? "auto";
  if (kind !== "auto") {
    const backend = backends[kind];
    if (backend === undefined) {
      throw new ConfigError(
        "device",
        `expected one of auto, ${Object.keys(backends).join(", ")}, got '${kind}'`,
      );
    }
    return await backend.open(options);
  }
  let failure: unknown;
  for (const backend of Object.values(backends)) {
    if (!(await backend.isPresent())) continue;
    try {
      const device = await backend.open(options);
      if (failure !== undefined)
        warn(`${messageOf(failure)}; going on with the slower ${device.kind} backend`);
      return device;
    } catch (error) {
      if (error instanceof ConfigError) throw error;
      failure ??= error;
    }
  }
  throw failure;
}

/** What this machine has of CUDA: GPUs, libraries and what is missing. Never throws. */
export async function describeCuda(): Promise<CudaDescription> {
  return (await import("./cuda/index.ts")).describeCuda();
}
