/** All operators of the CUDA backend, merged from the families of launch/. */
import type { CudaKernels } from "./launcher.ts";

export const cudaKernels: CudaKernels = {};
