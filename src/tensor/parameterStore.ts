/**
 * All parameters of a model, laid out in a few flat arenas: one for each combination of decayed or not and trained or frozen. An
 * optimizer then updates an arena with one call, and the global norm is one pass over one. What is frozen may lie elsewhere instead.
 *
 * Each parameter starts at a multiple of 256 bytes; the gaps are zero in parameters and gradients alike.
 */
import { dtypeBytes, invariant, numElements } from "../base/index.ts";
import type { FloatDtype, Shape } from "../base/index.ts";
import type { Device } from "../device/index.ts";
import { Parameter } from "./parameter.ts";
import { Storage, Tensor } from "./tensor.ts";

/** How a parameter begins: normal with this deviation, or one value throughout. */
export type Initializer = { kind: "normal"; std: number } | { kind: "constant"; value: number };

export interface ParameterSpec {
  name: string;
  shape: Shape;
  init: Initializer;
  /** Whether weight decay applies: matrices yes, norms and biases no. */
  decays: boolean;
  isFrozen?: boolean;
}

export interface ParameterStoreOptions {
  dtype: FloatDtype;
  /** dtype of the gradients; absent for a model that is not trained. */
  gradientDtype?: FloatDtype | undefined;
  /** Values of parameters that lie in no arena, by name, in the dtype: the store takes handles of its own. Only without gradients. */
  elsewhere?: ReadonlyMap<string, Tensor> | undefined;
}

/** A flat run of parameters that are treated alike. */
export interface ParameterArena {
  decays: boolean;
  /** (numElements) */
  values: Tensor;
  /** (numElements), where trained. */
  gradients: Tensor | undefined;
  parameters: readonly Parameter[];
  /** First element of each parameter in the arena. */
  offsets: readonly number[];
}

const alignmentBytes = 256;

export class ParameterStore implements Disposable {
  readonly arenas: readonly ParameterArena[];
  readonly #specs: readonly ParameterSpec[];
  readonly #byName: ReadonlyMap<string, Parameter>;
  readonly #owned: DisposableStack;

  constructor(device: Device, specs: readonly ParameterSpec[], options: ParameterStoreOptions) {
    const { dtype, gradientDtype, elsewhere = new Map<string, Tensor>() } = options;
    invariant(elsewhere.size === 0 || gradientDtype === undefined, "what is trained lies in arenas");
    this.#specs = specs;
    const groups = new Map<string, ParameterSpec[]>();
    for (const spec of specs) {
      if (elsewhere.has(spec.name)) continue;
      const key = `${spec.decays} ${spec.isFrozen ?? false}`;
      groups.set(key, [...(groups.get(key) ?? []), spec]);
    }
    using made = new DisposableStack();
    this.arenas = [...groups.values()].map((group) =>
      made.adopt(makeArena(device, group, options), disposeArena),
    );
    const others = specs.flatMap(({ name, shape, decays }) => {
      const values = elsewhere.get(name);
      if (values === undefined) return [];
      const { storage, byteOffset } = values;
      return [made.use(new Parameter(storage.retain(), { name, shape, dtype, byteOffset, decays }))];
    });
    this.#byName = new Map(
      [...this.arenas.flatMap((arena) => arena.parameters), ...others].map((parameter) => [
        parameter.name,
        parameter,
      ]),
    );
    invariant(this.#byName.size === specs.length, "parameter names are unique");
    this.#owned = made.move();
  }

  /** All parameters in the order of their specs. */
  *[Symbol.iterator](): Generator<Parameter> {
    for (const spec of this.#specs) yield this.get(spec.name);
  }

  get(name: string): Parameter {
    const parameter = this.#byName.get(name);
    invariant(parameter !== undefined, `parameter ${name} exists`);
    return parameter;
  }

  find(name: string): Parameter | undefined {
    return this.#byName.get(name);
  }

  /** Fills all parameters from `seed`: each from a stretch of the random stream that its place in the specs fixes. */
  initialise(seed: number): void {
    let counter = 0;
    for (const spec of this.#specs) {
      const y = this.get(spec.name);
      if (spec.init.kind === "constant") {
        y.device.run("fill", { y, numElements: y.numElements, value: spec.init.value });
      } else {
        y.device.run("randomNormal", {
          y,
          numElements: y.numElements,
          seed,
          counter,
          mean: 0,
          std: spec.init.std,
        });
      }
      counter += Math.ceil(y.numElements / 4);
    }
  }

  clearGradients(): void {
    for (const parameter of this.#byName.values()) parameter.clearGradient();
  }

  dispose(): void {
    this.#owned.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function makeArena(
  device: Device,
  specs: readonly ParameterSpec[],
  { dtype, gradientDtype }: ParameterStoreOptions,
): ParameterArena {
  const isTrained = gradientDtype !== undefined && specs[0].isFrozen !== true;
  const { offsets, length } = arenaLayout(specs, dtype);
  using made = new DisposableStack();
  const values = made.use(zeros(device, length, dtype));
  const gradients = isTrained ? made.use(zeros(device, length, gradientDtype)) : undefined;
  const parameters = specs.map(({ name, shape, decays }, index) => {
    const gradient =
      gradients &&
      new Tensor(gradients.storage.retain(), {
        shape,
        dtype: gradients.dtype,
        byteOffset: offsets[index] * dtypeBytes(gradients.dtype),
      });
    const byteOffset = offsets[index] * dtypeBytes(dtype);
    return new Parameter(values.storage.retain(), { name, shape, dtype, byteOffset, gradient, decays });
  });
  made.move();
  return { decays: specs[0].decays, values, gradients, parameters, offsets };
}

function disposeArena({ values, gradients, parameters }: ParameterArena): void {
  for (const parameter of parameters) {
    parameter.gradient?.dispose();
    parameter.dispose();
  }
  values.dispose();
  gradients?.dispose();
}

/** First element of each parameter, and the elements in all. */
export function arenaLayout(
  specs: readonly { shape: Shape }[],
  dtype: FloatDtype,
): { offsets: number[]; length: number } {
  const alignment = alignmentBytes / dtypeBytes(dtype);
  const offsets: number[] = [];
  let length = 0;
  for (const { shape } of specs) {
    offsets.push(length);
    length += Math.ceil(numElements(shape) / alignment) * alignment;
  }
  return { offsets, length };
}

function zeros(device: Device, length: number, dtype: FloatDtype): Tensor {
  const tensor = new Tensor(new Storage(device.allocate(length * dtypeBytes(dtype))), {
    shape: [length],
    dtype,
  });
  device.run("fill", { y: tensor, numElements: length, value: 0 });
  return tensor;
}
