/** Every CUDA kernel compiles for A100 and for Hopper with NVRTC of CUDA 12 and of 13, and holds the functions it is declared with; needs no GPU. */
import { availableParallelism } from "node:os";
import { expect, it } from "vitest";
import { messageOf } from "../../src/base/index.ts";
import { architectureFor, compileModule, compileModules, modulesOf } from "../../src/device/cuda/compiler.ts";
import "../../src/device/cuda/cudnn/launch.ts";
import "../../src/device/cuda/kernels.ts";
import { declaredKernels } from "../../src/device/cuda/launcher.ts";
import { supportedCudaMajors } from "../../src/device/cuda/libraries.ts";
import { Nvrtc } from "../../src/device/cuda/nvrtc.ts";

function openCompiler(major: number): Nvrtc | string {
  try {
    return Nvrtc.open([major]);
  } catch (error) {
    return messageOf(error);
  }
}

const targets = supportedCudaMajors.flatMap((major) => [
  { major, capability: 80, machine: "sm_80" },
  { major, capability: 90, machine: "sm_90a" },
]);

it.for(targets)("compiles every kernel with CUDA $major for $machine", async (target, context) => {
  const { major, capability, machine } = target;
  const compiler = openCompiler(major);
  if (typeof compiler === "string") return context.skip(compiler);
  expect(Math.floor(compiler.version / 1000)).toBe(major);
  const kernels = declaredKernels().filter((kernel) => kernel.minimumCapability <= capability);
  const modules = modulesOf(kernels, capability);
  expect(modules.length).toBeGreaterThan(0);
  const architecture = architectureFor(capability, compiler.architectures);
  expect(architecture).toBe(machine);
  await compileModules(compiler, modules, { architecture, parallel: availableParallelism() });
  for (const module of modules) {
    const image = Buffer.from(compileModule(compiler, module, architecture));
    for (const { entry, moduleKey } of kernels)
      if (moduleKey === module.moduleKey) expect(image.includes(`.text.${entry}\0`), entry).toBe(true);
  }
});
