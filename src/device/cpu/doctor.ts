/**
 * What `nautilus doctor` says of the CPU backend, as plain data: nothing is compiled, nothing throws.
 */
import { accessSync, constants, mkdirSync } from "node:fs";
import { availableParallelism, cpus, totalmem } from "node:os";
import { cacheFolder, messageOf } from "../../base/index.ts";
import { findCompiler } from "../build/index.ts";
import { chooseLevel, cpuFeatures, supportedLevels, type CpuLevel } from "./levels.ts";

export interface CpuDescription {
  readonly model: string;
  /** Processors of the machine, and those this process may run on. */
  readonly numProcessors: number;
  readonly numUsableProcessors: number;
  readonly memoryBytes: number;
  /** Vector instruction sets of the processor, in Linux' spelling. */
  readonly instructionSets: readonly string[];
  /** Levels that run here, lowest first, and the one in force. */
  readonly supportedLevels: readonly CpuLevel[];
  readonly level: CpuLevel | undefined;
  readonly compiler: { readonly command: string; readonly version: string } | undefined;
  readonly cacheFolder: string;
  readonly isCacheWritable: boolean;
  /** Whether the backend can be opened, as far as can be told without compiling. */
  readonly isOpenable: boolean;
  /** One sentence per thing that keeps the backend from running. */
  readonly problems: readonly string[];
}

export async function describeCpu(): Promise<CpuDescription> {
  const problems: string[] = [];
  const attempt = <Result>(body: () => Result): Result | undefined => {
    try {
      return body();
    } catch (error) {
      problems.push(messageOf(error));
      return undefined;
    }
  };
  const folder = cacheFolder("kernels");
  const isCacheWritable =
    attempt(() => {
      mkdirSync(folder, { recursive: true });
      accessSync(folder, constants.W_OK);
      return true;
    }) ?? false;
  const compiler = await findCompiler().catch((error: unknown) => {
    problems.push(messageOf(error));
    return undefined;
  });
  const level = attempt(chooseLevel);
  return {
    model: cpus()[0]?.model.trim() ?? "unknown",
    numProcessors: cpus().length,
    numUsableProcessors: availableParallelism(),
    memoryBytes: totalmem(),
    instructionSets: cpuFeatures().filter((name) =>
      /^(sse|avx|fma$|f16c$|amx|neon$|asimd|sve|bf16)/.test(name),
    ),
    supportedLevels: supportedLevels(),
    level,
    compiler,
    cacheFolder: folder,
    isCacheWritable,
    isOpenable: problems.length === 0,
    problems,
  };
}
