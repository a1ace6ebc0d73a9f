/**
 * What a machine has of CUDA, for `nautilus doctor`: the driver, each GPU, each library with path and version or what is missing
 * and which package brings it. Never throws.
 */
import { existsSync } from "node:fs";
import { messageOf } from "../../base/index.ts";
import { CudaDriver, formatCudaVersion } from "./driver.ts";
import { cudaLibraryNames, openCudaLibrary, supportedCudaMajors, type CudaLibraryName } from "./libraries.ts";
import { NativeWords } from "./native.ts";
import type { NativeLibrary } from "../ffi.ts";

export interface CudaGpu {
  readonly index: number;
  readonly name: string;
  /** "9.0" */
  readonly computeCapability: string;
  readonly totalBytes: number;
  readonly multiprocessorCount: number;
}

export interface CudaLibrary {
  readonly name: CudaLibraryName;
  readonly path?: string;
  readonly version?: string;
  /** The sentence that says what is missing and what brings it. */
  readonly problem?: string;
}

export interface CudaDescription {
  readonly gpus: readonly CudaGpu[];
  readonly libraries: readonly CudaLibrary[];
}

/** Whether the machine seems to have an NVIDIA GPU that this process may use; loads nothing. */
export function isCudaPresent(): boolean {
  const visible = process.env["CUDA_VISIBLE_DEVICES"];
  if (process.platform !== "linux" || visible === "" || visible === "-1") return false;
  return existsSync("/dev/nvidiactl") || existsSync("/dev/nvidia0") || existsSync("/dev/dxg");
}

const versionReaders: Readonly<Record<CudaLibraryName, (library: NativeLibrary) => string>> = {
  driver: (library) => `CUDA ${formatCudaVersion(readInt(library, "cuDriverGetVersion"))}`,
  nvrtc: (library) => {
    const words = new NativeWords(1);
    library.define("nvrtcVersion", "int32", ["address", "address"])(words.address, words.address + 4);
    return `${words.i32[0]}.${words.i32[1]}`;
  },
  cublasLt: (library) => {
    const version = library.define("cublasLtGetVersion", "uint64", [])();
    return `${Math.floor(version / 10_000)}.${Math.floor((version % 10_000) / 100)}.${version % 100}`;
  },
  cudnn: (library) => {
    const version = library.define("cudnnGetVersion", "uint64", [])();
    const cuda = library.define("cudnnGetCudartVersion", "uint64", [])();
    const own = `${Math.floor(version / 10_000)}.${Math.floor((version % 10_000) / 100)}.${version % 100}`;
    return `${own} for CUDA ${formatCudaVersion(cuda)}`;
  },
  nccl: (library) => {
    const version = readInt(library, "ncclGetVersion");
    return `${Math.floor(version / 10_000)}.${Math.floor((version % 10_000) / 100)}.${version % 100}`;
  },
};

function readInt(library: NativeLibrary, name: string): number {
  const words = new NativeWords(1);
  library.define(name, "int32", ["address"])(words.address);
  return words.i32[0];
}

export function describeCuda(): CudaDescription {
  let driver: CudaDriver | undefined;
  let driverProblem: string | undefined;
  try {
    driver = CudaDriver.open();
  } catch (error) {
    driverProblem = messageOf(error);
  }
  const libraries = cudaLibraryNames.map((name): CudaLibrary => {
    if (name === "driver" && driverProblem !== undefined) return { name, problem: driverProblem };
    try {
      const library = openCudaLibrary(name, driver?.majors ?? supportedCudaMajors);
      return { name, path: library.path, version: versionReaders[name](library.native) };
    } catch (error) {
      return { name, problem: messageOf(error) };
    }
  });
  return { gpus: driver === undefined ? [] : describeGpus(driver), libraries };
}

function describeGpus(driver: CudaDriver): CudaGpu[] {
  try {
    return Array.from({ length: driver.deviceCount }, (_, index) => {
      const major = driver.deviceAttribute(index, "capabilityMajor");
      const minor = driver.deviceAttribute(index, "capabilityMinor");
      return {
        index,
        name: driver.deviceName(index),
        computeCapability: `${major}.${minor}`,
        totalBytes: driver.deviceTotalBytes(index),
        multiprocessorCount: driver.deviceAttribute(index, "multiprocessorCount"),
      };
    });
  } catch {
    // The driver's own line already says what is wrong with it.
    return [];
  }
}
