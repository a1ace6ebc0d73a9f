/**
 * Status codes of the CUDA libraries as sentences. Knows the codes' names and what a user can do about each; throws
 * OutOfMemoryError for missing memory and DeviceError for the rest.
 * Source: CUresult in cuda.h, nvrtcResult in nvrtc.h, cublasStatus_t in cublas_api.h, cudnnStatus_t in cudnn_graph.h.
 */
import { DeviceError, OutOfMemoryError } from "../../base/index.ts";

const driverNames: Readonly<Record<number, string>> = {
  1: "CUDA_ERROR_INVALID_VALUE",
  2: "CUDA_ERROR_OUT_OF_MEMORY",
  3: "CUDA_ERROR_NOT_INITIALIZED",
  4: "CUDA_ERROR_DEINITIALIZED",
  34: "CUDA_ERROR_STUB_LIBRARY",
  46: "CUDA_ERROR_DEVICE_UNAVAILABLE",
  100: "CUDA_ERROR_NO_DEVICE",
  101: "CUDA_ERROR_INVALID_DEVICE",
  102: "CUDA_ERROR_DEVICE_NOT_LICENSED",
  200: "CUDA_ERROR_INVALID_IMAGE",
  201: "CUDA_ERROR_INVALID_CONTEXT",
  209: "CUDA_ERROR_NO_BINARY_FOR_GPU",
  214: "CUDA_ERROR_ECC_UNCORRECTABLE",
  218: "CUDA_ERROR_INVALID_PTX",
  220: "CUDA_ERROR_NVLINK_UNCORRECTABLE",
  221: "CUDA_ERROR_JIT_COMPILER_NOT_FOUND",
  222: "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
  226: "CUDA_ERROR_CONTAINED",
  304: "CUDA_ERROR_OPERATING_SYSTEM",
  400: "CUDA_ERROR_INVALID_HANDLE",
  500: "CUDA_ERROR_NOT_FOUND",
  600: "CUDA_ERROR_NOT_READY",
  700: "CUDA_ERROR_ILLEGAL_ADDRESS",
  701: "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
  702: "CUDA_ERROR_LAUNCH_TIMEOUT",
  709: "CUDA_ERROR_CONTEXT_IS_DESTROYED",
  710: "CUDA_ERROR_ASSERT",
  714: "CUDA_ERROR_HARDWARE_STACK_ERROR",
  715: "CUDA_ERROR_ILLEGAL_INSTRUCTION",
  716: "CUDA_ERROR_MISALIGNED_ADDRESS",
  717: "CUDA_ERROR_INVALID_ADDRESS_SPACE",
  718: "CUDA_ERROR_INVALID_PC",
  719: "CUDA_ERROR_LAUNCH_FAILED",
  720: "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE",
  800: "CUDA_ERROR_NOT_PERMITTED",
  801: "CUDA_ERROR_NOT_SUPPORTED",
  802: "CUDA_ERROR_SYSTEM_NOT_READY",
  803: "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
  804: "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
  805: "CUDA_ERROR_MPS_CONNECTION_FAILED",
  807: "CUDA_ERROR_MPS_SERVER_NOT_READY",
  900: "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
  901: "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
  905: "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
  906: "CUDA_ERROR_CAPTURED_EVENT",
  910: "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE",
  999: "CUDA_ERROR_UNKNOWN",
};

const lostHint =
  "the GPU's context is lost and this process must end; files written so far are whole, so resume from the last checkpoint";
const busyHint =
  "another process holds the GPU; end it or choose another GPU with CUDA_VISIBLE_DEVICES ('nvidia-smi' lists both)";
const driverHints: Readonly<Record<number, string>> = {
  3: "the driver could not start; 'nvidia-smi' says why",
  34: "a stub of libcuda was found before the driver's own; remove the toolkit's stubs folder from LD_LIBRARY_PATH",
  46: busyHint,
  100: "no GPU is visible; check 'nvidia-smi' and CUDA_VISIBLE_DEVICES",
  101: "no GPU has this number; 'nautilus doctor' lists them",
  102: "the virtual GPU has no licence; 'nvidia-smi -q' shows its state",
  200: "delete the kernel cache folder and try again",
  209: "the GPU is newer than the compiler; install a newer NVRTC",
  214: `the GPU's memory has a fault ('nvidia-smi -q -d ECC'); ${lostHint}`,
  220: lostHint,
  222: "the compiler is newer than the driver; update the NVIDIA driver or install an older NVRTC",
  226: lostHint,
  304: "the system refused the driver; check that /dev/nvidia0 and /dev/nvidia-uvm are there and may be opened, and that the container has them",
  700: lostHint,
  701: "a kernel asks for more registers or shared memory than this GPU has",
  702: lostHint,
  709: lostHint,
  710: lostHint,
  714: lostHint,
  715: lostHint,
  716: lostHint,
  717: lostHint,
  718: lostHint,
  719: lostHint,
  802: "the GPU is not ready; on NVSwitch machines start nvidia-fabricmanager",
  803: "the driver's kernel module and libcuda differ in version; restart the machine after the driver's update",
  804: "a CUDA compatibility library was found that this GPU does not take; remove it from LD_LIBRARY_PATH",
  805: "the MPS server does not answer; restart nvidia-cuda-mps-control, or end it to do without",
  807: "the MPS server is starting or ending; try again, or end nvidia-cuda-mps-control to do without",
  999: "'dmesg' may say more; restart the process",
};

/** Driver statuses after which the context cannot be used any more. */
const lostStatuses: ReadonlySet<number> = new Set([
  46, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719,
]);

export const cudaSuccess = 0;
export const cudaOutOfMemory = 2;
export const cudaNotReady = 600;

/** Calls before which this process holds nothing of the GPU. */
const openingCalls: ReadonlySet<string> = new Set(["cuInit", "cuDevicePrimaryCtxRetain"]);
const takenHint = `the card failed or was taken away ('nvidia-smi', 'dmesg'); ${lostHint}`;

/** Whether a driver status means that the device or its context is lost. */
export function isLostStatus(status: number): boolean {
  return lostStatuses.has(status);
}

export interface StatusPlace {
  /** For people: "GPU 0 (NVIDIA H200)". */
  readonly device: string;
}

/** The error for a driver call that gave `status`. */
export function driverError(call: string, status: number, device: string): DeviceError {
  const name = driverNames[status] ?? "CUDA_ERROR";
  const message = `expected ${call} to succeed on ${device}, got ${name} (${status})`;
  if (status === cudaOutOfMemory)
    return new OutOfMemoryError("cuda", message, {
      hint: "lower the micro-batch or the sequence length, or free the GPU's memory",
      fields: { call, status },
    });
  const isTaken = status === 46 && !openingCalls.has(call);
  const hint = isTaken ? takenHint : driverHints[status];
  return new DeviceError("cuda", message, {
    ...(hint === undefined ? {} : { hint }),
    fields: { call, status, isLost: isLostStatus(status) },
  });
}

const nvrtcNames: Readonly<Record<number, string>> = {
  1: "NVRTC_ERROR_OUT_OF_MEMORY",
  2: "NVRTC_ERROR_PROGRAM_CREATION_FAILURE",
  3: "NVRTC_ERROR_INVALID_INPUT",
  4: "NVRTC_ERROR_INVALID_PROGRAM",
  5: "NVRTC_ERROR_INVALID_OPTION",
  6: "NVRTC_ERROR_COMPILATION",
  7: "NVRTC_ERROR_BUILTIN_OPERATION_FAILURE",
};
const cublasNames: Readonly<Record<number, string>> = {
  1: "CUBLAS_STATUS_NOT_INITIALIZED",
  3: "CUBLAS_STATUS_ALLOC_FAILED",
  7: "CUBLAS_STATUS_INVALID_VALUE",
  8: "CUBLAS_STATUS_ARCH_MISMATCH",
  11: "CUBLAS_STATUS_MAPPING_ERROR",
  13: "CUBLAS_STATUS_EXECUTION_FAILED",
  14: "CUBLAS_STATUS_INTERNAL_ERROR",
  15: "CUBLAS_STATUS_NOT_SUPPORTED",
  16: "CUBLAS_STATUS_LICENSE_ERROR",
};
const libraryNames = { nvrtc: nvrtcNames, cublasLt: cublasNames };
const libraryHints: Readonly<Record<string, string>> = {
  NVRTC_ERROR_BUILTIN_OPERATION_FAILURE: "libnvrtc-builtins of the same version must lie beside libnvrtc",
  CUBLAS_STATUS_ARCH_MISMATCH: "this GPU is too old for this cuBLAS",
  CUBLAS_STATUS_NOT_INITIALIZED: "the driver may be too old for this cuBLAS, or the GPU's memory full",
  CUBLAS_STATUS_EXECUTION_FAILED: lostHint,
};

/** The error for a call into NVRTC or cuBLASLt. */
export function libraryError(library: keyof typeof libraryNames, call: string, status: number): DeviceError {
  const name = libraryNames[library][status] ?? "status";
  const hint = libraryHints[name];
  return new DeviceError("cuda", `expected ${call} to succeed, got ${name} (${status})`, {
    ...(hint === undefined ? {} : { hint }),
    fields: { call, status },
  });
}
