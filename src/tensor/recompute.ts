/**
 * Activation checkpointing (Chen et al., "Training deep nets with sublinear memory cost", 2016): a part of the model keeps
 * only its inputs and runs a second time in the backward pass.
 */
import { invariant } from "../base/index.ts";
import type { Context } from "./context.ts";
import { record, Tape, watch } from "./tape.ts";
import type { Tensor } from "./tensor.ts";

/**
 * `body(inputs)` with nothing kept but the inputs. The body must be a pure function of them and of parameters, and gives
 * its outputs in a fixed order; it runs once now and once per backward pass.
 */
export function recomputed(
  context: Context,
  inputs: readonly Tensor[],
  body: (inputs: readonly Tensor[]) => readonly Tensor[],
): readonly Tensor[] {
  const { tape } = context;
  if (tape === undefined) return body(inputs);
  const outputs = context.withTape(undefined, () => context.scope(() => body(inputs)));
  record(context, outputs, {
    name: "recomputed",
    inputs,
    save: inputs,
    backward: (doutputs, saved) => {
      using innerTape = new Tape();
      const fresh = saved.map((value) => {
        const input = context.adopt(value.get().alias());
        watch(input);
        return input;
      });
      const again = context.withTape(innerTape, () => body(fresh));
      const seeds = again.flatMap((tensor, index) => {
        const gradient = doutputs[index];
        return gradient === undefined ? [] : [{ tensor, gradient }];
      });
      innerTape.backward(context, seeds);
      return fresh.map((input) => {
        invariant(input.variable !== undefined, "recomputed input lost its variable");
        const { gradient } = input.variable;
        return gradient && context.adopt(gradient);
      });
    },
  });
  return outputs;
}
