/** The bindings' argument types against NVIDIA's headers, where a toolkit or the wheels bring them. */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, it } from "vitest";
import { cublasLtTable } from "../../src/device/cuda/cublaslt.ts";
import { cudnnTable } from "../../src/device/cuda/cudnn/library.ts";
import { driverTable } from "../../src/device/cuda/driver.ts";
import { libraryFolders } from "../../src/device/cuda/libraries.ts";
import type { ArgumentType, FunctionTable } from "../../src/device/cuda/native.ts";
import { nvrtcTable } from "../../src/device/cuda/nvrtc.ts";

const tables: readonly [header: string, table: FunctionTable][] = [
  ["cuda.h", driverTable],
  ["nvrtc.h", nvrtcTable],
  ["cublasLt.h", cublasLtTable],
  ["cudnn_graph.h", cudnnTable],
];

/** C types that are a pointer, an address or a handle behind a name. */
const pointerNames =
  /^(CUdeviceptr|CUcontext|CUstream|cudaStream_t|CUevent|CUmodule|CUfunction|CUgraph|CUgraphExec|nvrtcProgram|cublasLtHandle_t|cublasLtMatmulDesc_t|cublasLtMatrixLayout_t|cublasLtMatmulPreference_t|cudnnHandle_t|cudnnBackendDescriptor_t)$/;
const typeNames: Readonly<Record<string, ArgumentType>> = {
  size_t: "size",
  int: "int",
  int64_t: "int64",
  uint64_t: "uint64",
  "unsigned int": "uint",
  cuuint32_t: "uint",
  "unsigned char": "uint",
  "unsigned long long": "uint64",
  CUmemGenericAllocationHandle: "uint64",
  CUdevice: "int",
};

function argumentType(declaration: string): ArgumentType {
  if (/[*[]/.test(declaration)) return "pointer";
  const words = declaration.replaceAll("const ", "").trim().split(/\s+/);
  const name = words.slice(0, -1).join(" ");
  if (pointerNames.test(name)) return "pointer";
  // What is left are enumerations, which C passes as int.
  return typeNames[name] ?? "int";
}

function declaredTypes(header: string, symbol: string): ArgumentType[] | undefined {
  // The header's macros rename some functions; the declaration has the plain name.
  const name = symbol.replace(/(_v2|WithFlags)$/, "");
  const text = new RegExp(
    `(?:CUDAAPI|nvrtcResult|CUBLASWINAPI|CUDNNWINAPI)\\s+${name}(?:_v2)?\\(([^;]*)\\);`,
  ).exec(header)?.[1];
  return text
    ?.replaceAll(/\/\*.*?\*\//gs, "")
    .replaceAll(/\/\/.*$/gm, "")
    .split(",")
    .map(argumentType);
}

it.for(tables)("%s declares what the bindings say", ([file, table], context) => {
  const headers = libraryFolders().map((folder) => join(dirname(folder), "include", file));
  const path = headers.find((header) => existsSync(header));
  if (path === undefined) return context.skip(`no ${file} beside any of CUDA's libraries`);
  const header = readFileSync(path, "utf8");
  for (const [symbol, types] of Object.entries(table))
    expect(declaredTypes(header, symbol), symbol).toEqual([...types]);
});
