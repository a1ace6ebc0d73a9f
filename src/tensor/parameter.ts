/**
 * Parameters: the tensors that training changes. Their gradients accumulate in place: the first contribution after
 * `clearGradient` assigns, later ones add (beta = 1 in the matmul).
 */
import { invariant } from "../base/index.ts";
import { Tensor } from "./tensor.ts";
import type { Storage, TensorOptions } from "./tensor.ts";

export interface ParameterOptions extends TensorOptions {
  name: string;
  /** Where the gradient accumulates; without one the parameter is frozen. */
  gradient?: Tensor | undefined;
  /** Whether weight decay applies: not to norms and biases. */
  decays?: boolean;
}

export class Parameter extends Tensor {
  readonly name: string;
  readonly gradient: Tensor | undefined;
  readonly decays: boolean;
  #hasGradient = false;

  constructor(storage: Storage, options: ParameterOptions) {
    super(storage, options);
    this.name = options.name;
    this.gradient = options.gradient;
    this.decays = options.decays ?? true;
  }

  /** A frozen parameter takes no gradient. */
  get isTrainable(): boolean {
    return this.gradient !== undefined;
  }

  /** Whether the gradient holds anything yet. */
  get hasGradient(): boolean {
    return this.#hasGradient;
  }

  clearGradient(): void {
    this.#hasGradient = false;
  }

  /** For operators that take `beta`: the gradient, and 0 to assign or 1 to add. */
  gradientTarget(): { gradient: Tensor; beta: 0 | 1 } {
    invariant(this.gradient !== undefined, `gradient of the frozen parameter ${this.name}`);
    const beta = this.#hasGradient ? 1 : 0;
    this.#hasGradient = true;
    return { gradient: this.gradient, beta };
  }

  /** For operators that only add: the gradient, zeroed when it holds nothing yet. */
  gradientSum(): Tensor {
    const { gradient, beta } = this.gradientTarget();
    if (beta === 0) gradient.device.run("fill", { y: gradient, numElements: gradient.numElements, value: 0 });
    return gradient;
  }

  /** Zeroes a gradient that nothing has contributed to, so that an optimizer may read it. */
  completeGradient(): void {
    if (this.isTrainable && !this.#hasGradient) this.gradientSum();
  }
}
