/** The CUDA backend: NVIDIA GPUs through the driver API, NVRTC and cuBLASLt. */
export * from "./describe.ts";
export { createCudaDevice, CudaDevice, type CudaDeviceOptions } from "./device.ts";
export { formatProfile, type Profiler, type ProfileSummary } from "./profiler.ts";
