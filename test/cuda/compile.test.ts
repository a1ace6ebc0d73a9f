/** Every CUDA kernel compiles for A100 and for Hopper, and holds the functions it is declared with; needs NVRTC, no GPU. */
import { availableParallelism } from "node:os";
import { expect, it } from "vitest";
import { messageOf } from "../../src/base/index.ts";
import { architectureFor, compileModule, compileModules, modulesOf } from "../../src/device/cuda/compiler.ts";
import "../../src/device/cuda/cudnn/launch.ts";
import "../../src/device/cuda/kernels.ts";
import { declaredKernels } from "../../src/device/cuda/launcher.ts";
import { Nvrtc } from "../../src/device/cuda/nvrtc.ts";

function openCompiler(): Nvrtc | string {
  try {
    return Nvrtc.open();
  } catch (error) {
    return messageOf(error);
  }
}
const compiler = openCompiler();

it.for([80, 90])("compiles every kernel for compute capability %i", async (capability, context) => {
  if (typeof compiler === "string") return context.skip(compiler);
  const kernels = declaredKernels().filter((kernel) => kernel.minimumCapability <= capability);
  const modules = modulesOf(kernels, capability);
  expect(modules.length).toBeGreaterThan(0);
  const architecture = architectureFor(capability, compiler.architectures);
  await compileModules(compiler, modules, { architecture, parallel: availableParallelism() });
  for (const module of modules) {
    const image = Buffer.from(compileModule(compiler, module, architecture));
    for (const { entry, moduleKey } of kernels)
      if (moduleKey === module.moduleKey) expect(image.includes(`.text.${entry}\0`), entry).toBe(true);
  }
});
