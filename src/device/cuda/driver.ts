/**
 * The CUDA driver API, as far as it is used: typed bindings, and one checked call path whose errors name call, status and
 * device. Handles and addresses are numbers. Knows nothing of operators, kernels or pools.
 * Source: cuda.h; symbols carry the version suffix that the header's macros add.
 */
import { DeviceError } from "../../base/index.ts";
import { openCudaLibrary, supportedCudaMajors } from "./libraries.ts";
import { bindFunctions, NativeWords, type Functions } from "./native.ts";
import { cudaSuccess, driverError } from "./status.ts";

const table = {
  cuInit: ["uint"],
  cuDriverGetVersion: ["pointer"],
  cuDeviceGetCount: ["pointer"],
  cuDeviceGet: ["pointer", "int"],
  cuDeviceGetName: ["pointer", "int", "int"],
  cuDeviceTotalMem_v2: ["pointer", "int"],
  cuDeviceGetAttribute: ["pointer", "int", "int"],
  cuDevicePrimaryCtxRetain: ["pointer", "int"],
  cuDevicePrimaryCtxRelease_v2: ["int"],
  cuCtxSetCurrent: ["pointer"],
  cuStreamCreate: ["pointer", "uint"],
  cuStreamDestroy_v2: ["pointer"],
  cuStreamSynchronize: ["pointer"],
  cuStreamWaitEvent: ["pointer", "pointer", "uint"],
  cuStreamBeginCapture_v2: ["pointer", "int"],
  cuStreamEndCapture: ["pointer", "pointer"],
  cuEventCreate: ["pointer", "uint"],
  cuEventDestroy_v2: ["pointer"],
  cuEventRecord: ["pointer", "pointer"],
  cuEventQuery: ["pointer"],
  cuEventSynchronize: ["pointer"],
  cuEventElapsedTime: ["pointer", "pointer", "pointer"],
  cuMemGetInfo_v2: ["pointer", "pointer"],
  cuMemHostAlloc: ["pointer", "size", "uint"],
  cuMemFreeHost: ["pointer"],
  cuMemHostRegister_v2: ["pointer", "size", "uint"],
  cuMemHostUnregister: ["pointer"],
  cuMemAddressReserve: ["pointer", "size", "size", "pointer", "uint64"],
  cuMemAddressFree: ["pointer", "size"],
  cuMemCreate: ["pointer", "size", "pointer", "uint64"],
  cuMemRelease: ["uint64"],
  cuMemMap: ["pointer", "size", "size", "uint64", "uint64"],
  cuMemUnmap: ["pointer", "size"],
  cuMemSetAccess: ["pointer", "size", "pointer", "size"],
  cuMemGetAllocationGranularity: ["pointer", "pointer", "int"],
  cuMemcpyHtoDAsync_v2: ["pointer", "pointer", "size", "pointer"],
  cuMemcpyDtoHAsync_v2: ["pointer", "pointer", "size", "pointer"],
  cuMemcpyDtoDAsync_v2: ["pointer", "pointer", "size", "pointer"],
  cuMemsetD8Async: ["pointer", "uint", "size", "pointer"],
  cuModuleLoadData: ["pointer", "pointer"],
  cuModuleUnload: ["pointer"],
  cuModuleGetFunction: ["pointer", "pointer", "pointer"],
  cuFuncSetAttribute: ["pointer", "int", "int"],
  cuLaunchKernel: [
    "pointer",
    "uint",
    "uint",
    "uint",
    "uint",
    "uint",
    "uint",
    "uint",
    "pointer",
    "pointer",
    "pointer",
  ],
  cuTensorMapEncodeTiled: [
    "pointer",
    "int",
    "uint",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "pointer",
    "int",
    "int",
    "int",
    "int",
  ],
  cuLaunchKernelEx: ["pointer", "pointer", "pointer", "pointer"],
  cuGraphInstantiateWithFlags: ["pointer", "pointer", "uint64"],
  cuGraphGetNodes: ["pointer", "pointer", "pointer"],
  cuGraphUpload: ["pointer", "pointer"],
  cuGraphLaunch: ["pointer", "pointer"],
  cuGraphExecDestroy: ["pointer"],
  cuGraphDestroy: ["pointer"],
} as const;

export type DriverFunctions = Functions<typeof table>;
/** Symbols and argument types, for the test that compares them with cuda.h. */
export const driverTable = table;

export const deviceAttributes = {
  multiprocessorCount: 16,
  l2CacheBytes: 38,
  threadsPerMultiprocessor: 39,
  pciBusId: 33,
  capabilityMajor: 75,
  capabilityMinor: 76,
  sharedMemoryPerBlock: 97,
  virtualMemory: 102,
} as const;

/** The smallest version of CUDA a driver must support: 12.0 (driver 525). */
const oldestVersion = 12_000;

export class CudaDriver {
  readonly functions: DriverFunctions;
  readonly libraryPath: string;
  /** CUDA version that the driver supports: 13000 is 13.0. */
  readonly version: number;
  /** Room for out-parameters of one call at a time. */
  readonly out: NativeWords = new NativeWords(8);

  private constructor(functions: DriverFunctions, libraryPath: string) {
    this.functions = functions;
    this.libraryPath = libraryPath;
    this.check("cuDriverGetVersion", functions.cuDriverGetVersion(this.out.address), "the driver");
    this.version = this.out.i32[0];
    if (this.version < oldestVersion)
      throw new DeviceError(
        "cuda",
        `expected a driver for CUDA 12.0 or later, got one for ${formatCudaVersion(this.version)}`,
        { hint: "update the NVIDIA driver to 525 or later" },
      );
    this.check("cuInit", functions.cuInit(0), "the driver");
  }

  /** Opens the driver, once per process. Throws DeviceError: no driver, too old a driver, no GPU. */
  static open(): CudaDriver {
    if (CudaDriver.#instance === undefined) {
      const library = openCudaLibrary("driver");
      const functions = bindFunctions(library.native, table, "update the NVIDIA driver to 525 or later");
      CudaDriver.#instance = new CudaDriver(functions, library.path);
    }
    return CudaDriver.#instance;
  }
  static #instance: CudaDriver | undefined;

  /** The versions of CUDA whose libraries this driver can serve, best first. */
  get majors(): readonly number[] {
    const own = Math.floor(this.version / 1000);
    return supportedCudaMajors.filter((major) => major <= own);
  }

  /** Throws the error for `status`, unless it is success. */
  check(call: string, status: number, device: string): void {
    if (status !== cudaSuccess) throw driverError(call, status, device);
  }

  get deviceCount(): number {
    this.check("cuDeviceGetCount", this.functions.cuDeviceGetCount(this.out.address), "the driver");
    return this.out.i32[0];
  }

  deviceName(index: number): string {
    const name = new NativeWords(32);
    const status = this.functions.cuDeviceGetName(name.address, name.byteLength, index);
    this.check("cuDeviceGetName", status, `GPU ${index}`);
    return name.text();
  }

  deviceTotalBytes(index: number): number {
    const status = this.functions.cuDeviceTotalMem_v2(this.out.address, index);
    this.check("cuDeviceTotalMem", status, `GPU ${index}`);
    return this.out.word(0);
  }

  deviceAttribute(index: number, attribute: keyof typeof deviceAttributes): number {
    const status = this.functions.cuDeviceGetAttribute(this.out.address, deviceAttributes[attribute], index);
    this.check("cuDeviceGetAttribute", status, `GPU ${index}`);
    return this.out.i32[0];
  }
}

/** 13020 as "13.2". */
export function formatCudaVersion(version: number): string {
  return `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`;
}
