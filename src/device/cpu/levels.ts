/**
 * Instruction-set levels: what this processor can run, and the compiler flags of each level. The kernels are compiled for
 * one level, the highest that fits; NAUTILUS_CPU_LEVEL chooses a lower one.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { arch, platform } from "node:os";
import { ConfigError } from "../../base/index.ts";

export const cpuLevels = ["baseline", "neon", "avx2", "avx512", "avx512bf16"] as const;
export type CpuLevel = (typeof cpuLevels)[number];

const avx2Flags = ["-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mlzcnt", "-mpopcnt"];
const avx512Flags = [
  ...avx2Flags,
  "-mavx512f",
  "-mavx512bw",
  "-mavx512dq",
  "-mavx512vl",
  "-mavx512cd",
  "-mprefer-vector-width=512",
];
const levelFlags: Readonly<Record<CpuLevel, readonly string[]>> = {
  baseline: [],
  neon: [],
  avx2: avx2Flags,
  avx512: avx512Flags,
  avx512bf16: [...avx512Flags, "-mavx512vnni", "-mavx512bf16"],
};

/** The names of /proc/cpuinfo that a level needs. */
const levelFeatures: Partial<Record<CpuLevel, readonly string[]>> = {
  avx2: ["avx2", "fma", "f16c", "bmi1", "bmi2"],
  avx512: ["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"],
  avx512bf16: ["avx512_vnni", "avx512_bf16"],
};

/** NaN and infinity keep their meaning at every level: no -ffast-math. */
export function compileFlags(level: CpuLevel): string[] {
  return [
    "-std=c++17",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fvisibility=hidden",
    "-pthread",
    ...levelFlags[level],
  ];
}

/** Feature names of this processor, in Linux' spelling. */
export function cpuFeatures(): string[] {
  try {
    if (platform() === "linux") {
      const text = readFileSync("/proc/cpuinfo", "utf8");
      return /^(?:flags|Features)\s*:(.*)$/m.exec(text)?.[1].trim().split(/\s+/) ?? [];
    }
    if (platform() === "darwin" && arch() === "x64") {
      const names = ["machdep.cpu.features", "machdep.cpu.leaf7_features"];
      const text = execFileSync("sysctl", ["-n", ...names], { encoding: "utf8" });
      return text.toLowerCase().replaceAll("avx1.0", "avx").trim().split(/\s+/);
    }
  } catch {
    // Unknown processor: the baseline runs everywhere.
  }
  return [];
}

/** The levels this processor runs, lowest first. */
export function supportedLevels(): CpuLevel[] {
  if (arch() === "arm64") return ["neon"];
  if (arch() !== "x64") return ["baseline"];
  const features = new Set(cpuFeatures());
  const levels: CpuLevel[] = ["baseline"];
  for (const level of ["avx2", "avx512", "avx512bf16"] as const) {
    if (!levelFeatures[level]?.every((feature) => features.has(feature))) break;
    levels.push(level);
  }
  return levels;
}

/** The level to run: the highest, or NAUTILUS_CPU_LEVEL. Throws ConfigError where that cannot run here. */
export function chooseLevel(): CpuLevel {
  const levels = supportedLevels();
  const wanted = process.env["NAUTILUS_CPU_LEVEL"];
  if (wanted === undefined || wanted === "") return levels[levels.length - 1];
  const level = levels.find((candidate) => candidate === wanted);
  if (level !== undefined) return level;
  throw new ConfigError(
    "cpu",
    `expected NAUTILUS_CPU_LEVEL to be one of ${levels.join(", ")}, got '${wanted}'`,
    {
      hint: "these are the levels that this processor runs",
    },
  );
}
