/** Builds the made-up CUDA libraries of libraries.cpp into a folder for NAUTILUS_CUDA_LIBS. Needs g++. */
import { execFileSync } from "node:child_process";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cublasLtTable } from "../../../src/device/cuda/cublaslt.ts";
import { driverTable } from "../../../src/device/cuda/driver.ts";
import { nvrtcTable } from "../../../src/device/cuda/nvrtc.ts";

export type FakeLibrary = "libcuda.so.1" | "libnvrtc.so.13" | "libcublasLt.so.13";
const names: readonly FakeLibrary[] = ["libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13"];

/** Writes the libraries into `folder`. Functions named in `absent` are in none of them. */
export function buildFakeLibraries(folder: string, absent: readonly string[] = []): void {
  const written = readFileSync(join(import.meta.dirname, "libraries.cpp"), "utf8");
  const stubs = [driverTable, nvrtcTable, cublasLtTable]
    .flatMap((table) => Object.keys(table))
    .filter((name) => !written.includes(`CALL(${name},`) && !absent.includes(name))
    .map((name) => `CALL(${name}, (), )`);
  const source = join(folder, "libraries.cpp");
  const kept = absent.reduce(
    (text, name) => text.replaceAll(`CALL(${name},`, `CALL(absent_${name},`),
    written,
  );
  writeFileSync(source, `${kept}\n${stubs.join("\n")}\n`);
  const [first, ...others] = names.map((name) => join(folder, name));
  execFileSync("g++", ["-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-o", first, source], {
    stdio: "pipe",
  });
  for (const other of others) copyFileSync(first, other);
}
