/**
 * Compiles every declared CUDA kernel for sm_80 and sm_90a, where NVRTC is found; no GPU is needed. Prints a line per
 * architecture, and the compiler's messages of a kernel that fails. `node scripts/compile-cuda.ts [capability …]`
 */
import { availableParallelism } from "node:os";
import { exit } from "node:process";
import { messageOf } from "../src/base/index.ts";
import { architectureFor, compileModules, modulesOf } from "../src/device/cuda/compiler.ts";
import "../src/device/cuda/cudnn/launch.ts";
import { cudaKernels } from "../src/device/cuda/kernels.ts";
import { declaredKernels } from "../src/device/cuda/launcher.ts";
import { Nvrtc } from "../src/device/cuda/nvrtc.ts";

const capabilities = process.argv.slice(2).map(Number);
if (capabilities.length === 0) capabilities.push(80, 90);

let compiler: Nvrtc;
try {
  compiler = Nvrtc.open();
} catch (error) {
  console.log(`no CUDA kernel was compiled: ${messageOf(error)}`);
  exit(0);
}
console.log(`NVRTC ${compiler.version / 1000} at ${compiler.libraryPath}`);
console.log(`${Object.keys(cudaKernels).length + 1} operators, ${declaredKernels().length} kernels`);
for (const capability of capabilities) {
  const architecture = architectureFor(capability, compiler.architectures);
  const modules = modulesOf(declaredKernels(), capability);
  const start = performance.now();
  try {
    const sizes = await compileModules(compiler, modules, { architecture, parallel: availableParallelism() });
    const totalBytes = sizes.reduce((sum, size) => sum + size, 0);
    const seconds = (performance.now() - start) / 1000;
    console.log(`${architecture}: ${modules.length} modules, ${totalBytes} bytes, ${seconds.toFixed(1)} s`);
  } catch (error) {
    console.error(messageOf(error));
    exit(1);
  }
}
