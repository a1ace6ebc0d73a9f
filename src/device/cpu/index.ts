/** The CPU backend: C++ kernels compiled on first use. */
import { availableParallelism } from "node:os";
import { ConfigError } from "../../base/index.ts";
import { CpuDevice } from "./device.ts";
import { chooseLevel, type CpuLevel } from "./levels.ts";
import { loadKernels } from "./native.ts";

export type { CpuDevice } from "./device.ts";
export { describeCpu, type CpuDescription } from "./doctor.ts";

export interface CpuOptions {
  /** Threads of the kernels; the processors this process may run on by default. */
  readonly threads?: number | undefined;
  /** Instruction-set level; NAUTILUS_CPU_LEVEL or the highest by default. */
  readonly level?: CpuLevel | undefined;
}

/** Compiles the kernels where the cache lacks them. Throws ConfigError, DeviceError (no compiler), FileError (cache). */
export async function createCpuDevice(options: CpuOptions = {}): Promise<CpuDevice> {
  const threads = options.threads ?? availableParallelism();
  if (!Number.isInteger(threads) || threads < 1 || threads > 1024) {
    throw new ConfigError("cpu", `expected threads between 1 and 1024, got ${threads}`);
  }
  return new CpuDevice(await loadKernels(options.level ?? chooseLevel()), threads);
}
