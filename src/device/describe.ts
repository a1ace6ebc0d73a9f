/** What every backend finds on this machine, as plain data, for `nautilus doctor`. */
import type { CpuDescription } from "./cpu/index.ts";
import type { CudaDescription } from "./cuda/index.ts";

export interface DeviceDescriptions {
  cpu: CpuDescription;
  cuda: CudaDescription;
}

/** Opens nothing for good and compiles nothing; never throws for what is missing. */
export async function describeDevices(): Promise<DeviceDescriptions> {
  const [{ describeCpu }, { describeCuda }] = await Promise.all([
    import("./cpu/index.ts"),
    import("./cuda/index.ts"),
  ]);
  return { cpu: await describeCpu(), cuda: describeCuda() };
}
