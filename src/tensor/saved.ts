/**
 * What operators leave for the backward pass: kept values, recipes for values that are cheaper to make again, and the node
 * that joins them.
 */
import { invariant } from "../base/index.ts";
import type { Recipe, Tensor, Variable } from "./tensor.ts";

/** Which activations are made again in the backward pass instead of being kept. */
export type RecomputePolicy = "none" | "norm-activation" | "block";

/** A value kept for the backward pass: by holding its memory, or by its recipe. */
export class Saved {
  readonly #tensor: Tensor | undefined;
  readonly #recipe: Recipe | undefined;

  constructor(tensor: Tensor) {
    this.#recipe = tensor.recipe;
    this.#recipe?.retain();
    this.#tensor = this.#recipe === undefined ? tensor.alias() : undefined;
  }

  /** The value; made again each time where it has a recipe, and then owned by the innermost scope. */
  get(): Tensor {
    if (this.#tensor !== undefined) return this.#tensor;
    invariant(this.#recipe !== undefined, "saved value without tensor or recipe");
    return this.#recipe.compute();
  }

  release(): void {
    this.#tensor?.dispose();
    this.#recipe?.release();
  }
}

/** A recipe that computes from `inputs`, which it keeps. Give it to a tensor, which then owns its first hold. */
export function recipeFrom(
  inputs: readonly Tensor[],
  compute: (inputs: readonly Tensor[]) => Tensor,
): Recipe {
  const saved = inputs.map((tensor) => new Saved(tensor));
  let numHolders = 1;
  return {
    compute: () => compute(saved.map((value) => value.get())),
    retain: () => {
      numHolders++;
    },
    release: () => {
      numHolders--;
      if (numHolders === 0) for (const value of saved) value.release();
    },
  };
}

export type Gradients = readonly (Tensor | undefined)[];

/** One recorded operator. */
export interface TapeNode {
  readonly name: string;
  readonly outputs: readonly Variable[];
  readonly inputs: readonly (Variable | undefined)[];
  readonly saved: readonly Saved[];
  readonly backward: (doutputs: Gradients, saved: readonly Saved[]) => Gradients;
}

/** Where operators record themselves: the tape, as a context knows it. */
export interface Recorder {
  readonly recompute: RecomputePolicy;
  push(node: TapeNode): void;
}
