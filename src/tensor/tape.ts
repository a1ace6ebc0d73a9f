/**
 * Reverse-mode differentiation as an eager tape: each fused operator records one node, in order, and `backward` walks them
 * from the last to the first. A node's saved values are freed as soon as its gradient has been taken, so that memory falls
 * while the backward pass goes.
 */
import { invariant } from "../base/index.ts";
import type { Context } from "./context.ts";
import { Parameter } from "./parameter.ts";
import { Variable } from "./tensor.ts";
import type { Tensor } from "./tensor.ts";
import { Saved } from "./saved.ts";
import type { Gradients, RecomputePolicy, Recorder, TapeNode } from "./saved.ts";

export class Tape implements Recorder, Disposable {
  readonly recompute: RecomputePolicy;
  #nodes: TapeNode[] = [];

  constructor(recompute: RecomputePolicy = "none") {
    this.recompute = recompute;
  }

  push(node: TapeNode): void {
    this.#nodes.push(node);
  }

  /**
   * Walks the tape backwards from the `seeds` and from losses recorded without outputs, and empties it. Gradients of watched
   * tensors end in their variables, those of parameters in the parameters.
   */
  backward(context: Context, seeds: readonly { tensor: Tensor; gradient: Tensor }[] = []): void {
    for (const { tensor, gradient } of seeds) {
      invariant(tensor.variable !== undefined, "gradient seeded for a tensor that is not on the tape");
      accumulate(context, tensor.variable, gradient);
    }
    context.withTape(undefined, () => {
      for (let node = this.#nodes.pop(); node !== undefined; node = this.#nodes.pop())
        runBackward(context, node);
    });
  }

  /** Frees what the nodes hold, without a backward pass. */
  dispose(): void {
    for (const node of this.#nodes) {
      for (const value of node.saved) value.release();
      for (const output of node.outputs) output.dispose();
    }
    this.#nodes = [];
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function runBackward(context: Context, node: TapeNode): void {
  const doutputs = node.outputs.map((output) => output.gradient);
  if (node.outputs.length === 0 || doutputs.some((gradient) => gradient !== undefined)) {
    context.scope(() => {
      // Each variable hands its gradient over, so that an operator may reuse the memory when nobody else holds it.
      for (const output of node.outputs) output.gradient = undefined;
      for (const gradient of doutputs) if (gradient !== undefined) context.adopt(gradient);
      const dinputs = node.backward(doutputs, node.saved);
      for (const [index, gradient] of dinputs.entries()) {
        const variable = node.inputs[index];
        if (gradient !== undefined && variable !== undefined) accumulate(context, variable, gradient);
      }
    });
  }
  for (const value of node.saved) value.release();
}

/** Adds `gradient` to what the variable holds; the variable keeps a handle of its own. */
function accumulate(context: Context, variable: Variable, gradient: Tensor): void {
  const previous = variable.gradient;
  if (previous === undefined) {
    variable.gradient = gradient.alias();
    return;
  }
  context.scope(() => {
    const sum = context.empty(gradient.shape, gradient.dtype);
    context.device.run("add", { a: previous, b: gradient, y: sum, numElements: sum.numElements });
    variable.gradient = sum.alias();
  });
  previous.dispose();
}

/** Whether a gradient with respect to `tensor` is wanted. */
export function needsGradient(tensor: Tensor | undefined): boolean {
  if (tensor instanceof Parameter) return tensor.isTrainable;
  return tensor?.variable !== undefined;
}

/** Asks for the gradient with respect to a tensor that no operator made: it ends in the variable given back. */
export function watch(tensor: Tensor): Variable {
  tensor.variable = new Variable();
  return tensor.variable;
}

/** An operator as the tape sees it. */
export interface RecordedOperator {
  /** For errors and profiles. */
  readonly name: string;
  readonly inputs: readonly (Tensor | undefined)[];
  /** What `backward` needs, in the order in which it reads it. */
  readonly save: readonly Tensor[];
  /**
   * Gradients of the inputs, in their order, from those of the outputs (undefined where none arrived). Those of parameters
   * are accumulated in place instead and given back as undefined. Runs in a scope of its own.
   */
  readonly backward: (doutputs: Gradients, saved: readonly Saved[]) => Gradients;
}

/**
 * Records an operator on the context's tape, where one of its inputs wants a gradient, and gives its outputs their
 * variables. Says whether it did.
 */
export function record(context: Context, outputs: readonly Tensor[], operator: RecordedOperator): boolean {
  const { tape } = context;
  if (tape === undefined || !operator.inputs.some(needsGradient)) return false;
  tape.push({
    name: operator.name,
    outputs: outputs.map((output) => watch(output)),
    inputs: operator.inputs.map((input) => input?.variable),
    saved: operator.save.map((tensor) => new Saved(tensor)),
    backward: operator.backward,
  });
  return true;
}

/**
 * Lets gradients flow back to `x`, which no operator on the tape made, and drops them there: a model whose weights are frozen is still
 * walked to its first layer.
 */
export function gradientSink(context: Context, x: Tensor): void {
  context.tape?.push({ name: "sink", outputs: [watch(x)], inputs: [], saved: [], backward: () => [] });
}

/**
 * A tensor for an operator's result of the shape and dtype of `spent`: its very memory, where nobody else holds it (then
 * the operator works in place), else fresh memory.
 */
export function reuse(context: Context, spent: Tensor): Tensor {
  if (spent.storage.isShared) return context.empty(spent.shape, spent.dtype);
  const reused = spent.alias();
  reused.variable = undefined;
  return context.adopt(reused);
}
