/**
 * IA3 (Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", 2022): learned factors on what
 * modules give (keys, values), or on what they take (the down projection). They begin at one.
 */
import { linear, ParameterStore, scaleColumns } from "../../tensor/index.ts";
import type { Context, ParameterSpec } from "../../tensor/index.ts";
import type { Decoder } from "../common/decoder.ts";
import type { ProjectionAdapter, ProjectionPlace } from "../common/projection.ts";
import { Adapter } from "./adapter.ts";
import type { AdapterOptions, AdapterTensor } from "./adapter.ts";
import type { Ia3Config } from "./config.ts";
import { byProjection, placeKey } from "./targets.ts";
import type { TargetModule } from "./targets.ts";

export interface Ia3Module extends TargetModule {
  /** The input is scaled, not the output. */
  isFeedforward: boolean;
}

export const factorName = ({ path }: TargetModule): string => `${path}.ia3_l`;

/** A factor per number that is scaled. */
export function ia3Specs(modules: readonly Ia3Module[]): ParameterSpec[] {
  return modules.map((module) => ({
    name: factorName(module),
    shape: [module.isFeedforward ? module.numInputs : module.numOutputs],
    init: { kind: "constant", value: 1 },
    decays: false,
  }));
}

export class Ia3Adapter extends Adapter {
  readonly config: Ia3Config;
  readonly parameters: ParameterStore;
  readonly modules: readonly Ia3Module[];
  readonly #byPlace: ReadonlyMap<string, ProjectionAdapter>;

  constructor(
    decoder: Decoder,
    { config, modules, ...options }: { config: Ia3Config; modules: readonly Ia3Module[] } & AdapterOptions,
  ) {
    super();
    this.config = config;
    this.modules = modules;
    this.parameters = new ParameterStore(decoder.head.device, ia3Specs(modules), options);
    this.#byPlace = new Map(
      byProjection(modules).map(({ place, modules: placed }) => [
        placeKey(place),
        this.#projectionAdapter(placed),
      ]),
    );
  }

  #projectionAdapter(modules: readonly Ia3Module[]): ProjectionAdapter {
    const ranges = (isFeedforward: boolean) =>
      modules
        .filter((module) => module.isFeedforward === isFeedforward)
        .map((module) => ({
          start: isFeedforward ? 0 : module.outputStart,
          scale: this.parameters.get(factorName(module)),
        }));
    const [inputs, outputs] = [ranges(true), ranges(false)];
    return {
      apply: (context, x, weights) => {
        const input = inputs.length === 0 ? x : scaleColumns(context, x, inputs);
        const y = linear(context, input, weights);
        return outputs.length === 0 ? y : scaleColumns(context, y, outputs);
      },
    };
  }

  override projection(place: ProjectionPlace): ProjectionAdapter | undefined {
    return this.#byPlace.get(placeKey(place));
  }

  initialise(_context: Context, seed: number): void {
    this.parameters.initialise(seed);
  }

  tensors(_context: Context): AdapterTensor[] {
    return this.modules.map((module) => {
      const factors = this.parameters.get(factorName(module));
      const { numElements } = factors;
      return {
        name: factorName(module),
        tensor: factors.reshape(module.isFeedforward ? [1, numElements] : [numElements, 1]),
      };
    });
  }
}
