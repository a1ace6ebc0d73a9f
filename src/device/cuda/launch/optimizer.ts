/** Launcher of adamw. */
import type { OpArguments } from "../../contract.ts";
import { f32, i32, i64, kernel, pointer, type CudaKernels, type KernelReference } from "../launcher.ts";
import { allowsPacks, bf16Flags, ceilDiv } from "./grid.ts";

const file = "adamw.cu";
const adamwNearest = kernel({ file, entry: "adamw_nearest" });
const adamwStochastic = kernel({ file, entry: "adamw_stochastic" });
const adamwBf16 = kernel({ file, entry: "adamw_bf16" });

const threads = 256;
/** adamw.cu: quads_per_block quads of four, or a pack of eight for each thread. */
const elementsPerBlock = 2048;

/** The kernel of an update, by what its states are. */
function kernelOf(args: OpArguments<"adamw">): KernelReference {
  const { param, master, grad, m, v } = args;
  if (args.stochasticRounding !== 1) return adamwNearest;
  const states = [param, grad, m, v];
  const isBf16 = master === undefined && states.every(({ dtype }) => dtype === "bf16");
  return isBf16 && allowsPacks(states, []) ? adamwBf16 : adamwStochastic;
}

export const optimizerKernels = {
  adamw: (context, args) => {
    const { param, master, grad, m, v, coefficient, numElements, step, seed, counter } = args;
    const { learningRate, beta1, beta2, eps, weightDecay } = args;
    context.launch(kernelOf(args), { grid: ceilDiv(numElements, elementsPerBlock), block: threads }, [
      pointer(param),
      pointer(master),
      pointer(grad),
      pointer(m),
      pointer(v),
      pointer(coefficient),
      i64(numElements),
      i64(seed),
      i64(counter),
      i32(bf16Flags("adamw", { 1: param, 2: grad, 4: m, 8: v })),
      f32(learningRate),
      f32(beta1),
      f32(1 - beta1),
      f32(beta2),
      f32(1 - beta2),
      f32(1 / (1 - beta1 ** step)),
      f32(1 / (1 - beta2 ** step)),
      f32(eps),
      f32(weightDecay),
    ]);
  },
} satisfies CudaKernels;
