/**
 * AdamW (Loshchilov and Hutter, 2019) over parameter arenas, with the clip by global norm computed on the device, so that a
 * step never waits for the host: a step whose norm is not finite changes nothing and is reported afterwards.
 *
 * States per parameter: m and v in f32 or bf16, and for bf16 parameters an f32 master copy, or stochastic rounding without
 * one (Zamirai et al., "Revisiting BFloat16 training", 2020).
 */
import { dtypeBytes } from "../base/index.ts";
import { Storage, Tensor } from "../tensor/index.ts";
import type { Context, ParameterArena, ParameterStore } from "../tensor/index.ts";

export interface OptimizerConfig {
  betas: readonly [number, number];
  eps: number;
  weightDecay: number;
  /** Largest global norm; 0 turns clipping off. */
  clip: number;
  moments: "f32" | "bf16";
  /** bf16 parameters only: an f32 master copy, or stochastic rounding. */
  master: boolean;
}

interface ArenaState {
  arena: ParameterArena;
  m: Tensor;
  v: Tensor;
  master: Tensor | undefined;
}

export interface OptimizerStepOptions {
  /** From 1. */
  step: number;
  learningRate: number;
  seed: number;
  /** A norm above this skips the step; 0 for never. */
  skipAboveNorm: number;
}

export class AdamW implements Disposable {
  readonly config: OptimizerConfig;
  readonly #parameters: ParameterStore;
  readonly #states: readonly ArenaState[];
  readonly #sumOfSquares: Tensor;
  readonly #coefficient: Tensor;
  /** f32 (1): the global norm of the last step's gradients. */
  readonly norm: Tensor;

  constructor(context: Context, parameters: ParameterStore, config: OptimizerConfig) {
    this.config = config;
    this.#parameters = parameters;
    this.#states = parameters.arenas
      .filter((arena) => arena.gradients !== undefined)
      .map((arena) => {
        const length = arena.values.numElements;
        const needsMaster = config.master && arena.values.dtype !== "f32";
        return {
          arena,
          m: persistent(context, length, config.moments, 0),
          v: persistent(context, length, config.moments, 0),
          master: needsMaster ? persistent(context, length, "f32", undefined) : undefined,
        };
      });
    this.#sumOfSquares = persistent(context, 1, "f64", 0);
    this.#coefficient = persistent(context, 1, "f32", 0);
    this.norm = persistent(context, 1, "f32", 0);
  }

  /** Copies the parameters into the master copies: after initialising or loading weights. */
  resetMasters(context: Context): void {
    for (const { arena, master } of this.#states) {
      if (master !== undefined)
        context.device.run("convert", { x: arena.values, y: master, numElements: master.numElements });
    }
  }

  /** Queues one update from the gradients, which must be complete; then marks them as used. */
  step(context: Context, { step, learningRate, seed, skipAboveNorm }: OptimizerStepOptions): void {
    const { device } = context;
    for (const parameter of this.#parameters) parameter.completeGradient();
    device.run("fill", { y: this.#sumOfSquares, numElements: 1, value: 0 });
    for (const { arena } of this.#states) {
      if (arena.gradients === undefined) continue;
      device.run("sumOfSquares", {
        x: arena.gradients,
        accumulator: this.#sumOfSquares,
        numElements: arena.gradients.numElements,
      });
    }
    device.run("clipCoefficient", {
      sumOfSquares: this.#sumOfSquares,
      norm: this.norm,
      coefficient: this.#coefficient,
      gradientScale: 1,
      maxNorm: this.config.clip,
      skipAboveNorm,
    });
    const [beta1, beta2] = this.config.betas;
    let counter = 0;
    for (const { arena, m, v, master } of this.#states) {
      if (arena.gradients === undefined) continue;
      const numElements = arena.values.numElements;
      device.run("adamw", {
        param: arena.values,
        master,
        grad: arena.gradients,
        m,
        v,
        coefficient: this.#coefficient,
        numElements,
        step,
        // One stream of random bits per step: a step's rounding depends on (seed, step) alone.
        seed: seed * 2 ** 24 + step,
        counter,
        stochasticRounding: Number(!this.config.master),
        learningRate,
        beta1,
        beta2,
        eps: this.config.eps,
        weightDecay: arena.decays ? this.config.weightDecay : 0,
      });
      counter += numElements;
    }
    this.#parameters.clearGradients();
  }

  /** Every state by parameter, as "m.NAME", "v.NAME", "master.NAME": views that the caller disposes, for saving and loading. */
  tensors(): { name: string; tensor: Tensor }[] {
    return this.#states.flatMap(({ arena, m, v, master }) =>
      arena.parameters.flatMap((parameter, index) =>
        Object.entries({ m, v, master }).flatMap(([kind, state]) => {
          if (state === undefined) return [];
          const byteOffset = arena.offsets[index] * dtypeBytes(state.dtype);
          const tensor = new Tensor(state.storage.retain(), {
            shape: parameter.shape,
            dtype: state.dtype,
            byteOffset,
          });
          return [{ name: `${kind}.${parameter.name}`, tensor }];
        }),
      ),
    );
  }

  dispose(): void {
    for (const { m, v, master } of this.#states) {
      m.dispose();
      v.dispose();
      master?.dispose();
    }
    this.#sumOfSquares.dispose();
    this.#coefficient.dispose();
    this.norm.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** A tensor outside all scopes, filled with `value` where that is given. */
function persistent(
  context: Context,
  length: number,
  dtype: "f32" | "bf16" | "f64",
  value: number | undefined,
): Tensor {
  const tensor = new Tensor(new Storage(context.device.allocate(length * dtypeBytes(dtype))), {
    shape: [length],
    dtype,
  });
  if (value !== undefined) context.device.run("fill", { y: tensor, numElements: length, value });
  return tensor;
}
