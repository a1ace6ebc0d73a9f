/** Devices: the contract, the operator table, and the one place that names the backends. */
export * from "./contract.ts";
export { describeDevices, type DeviceDescriptions } from "./describe.ts";
export * from "./open.ts";
export * from "./ops.ts";
export type { CudaDescription, CudaGpu, CudaLibrary } from "./cuda/index.ts";
