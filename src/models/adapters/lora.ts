/**
 * LoRA (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021): y = x W^T + scale (x A^T) B^T on chosen modules, A (r, C), B
 * (n, r), scale = alpha / r, or alpha / sqrt(r) (rsLoRA: Kalajdzievski, 2023). Names and initial values are PEFT's.
 *
 * The A of modules that share a fused projection lie under each other in one matrix, so that one product serves them; they also share
 * one dropout of their input.
 */
import { ConfigError } from "../../base/index.ts";
import { dropout, lowRankLinear, ParameterStore } from "../../tensor/index.ts";
import type { Context, LowRankPart, ParameterSpec, Tensor } from "../../tensor/index.ts";
import type { ProjectionAdapter, ProjectionPlace } from "../common/projection.ts";
import type { Decoder } from "../common/decoder.ts";
import { Adapter } from "./adapter.ts";
import type { AdapterOptions, AdapterTensor } from "./adapter.ts";
import type { LoraConfig } from "./config.ts";
import { fillNormal, fillUniform } from "./initialise.ts";
import { byProjection, placeKey } from "./targets.ts";
import type { TargetModule } from "./targets.ts";

/** A module with its own rank and scale. */
export interface LoraModule extends TargetModule {
  rank: number;
  scale: number;
  /** First of its rows in the projection's A. */
  rankStart: number;
}

export interface LoraProjectionPlace {
  place: ProjectionPlace;
  modules: readonly LoraModule[];
}

export const lowRankA = (place: ProjectionPlace): string => `${placeKey(place)}.lora_A`;
export const lowRankB = ({ path }: TargetModule): string => `${path}.lora_B`;

/** Rank and scale of each module: the configuration's, or those of the first pattern that is the end of its path. */
export function loraPlaces(config: LoraConfig, modules: readonly TargetModule[]): LoraProjectionPlace[] {
  const patterned = <Value>(patterns: Readonly<Record<string, Value>>, path: string): Value | undefined =>
    Object.entries(patterns).find(([end]) => path === end || path.endsWith(`.${end}`))?.[1];
  return byProjection(modules).map(({ place, modules: parts }) => {
    let rankStart = 0;
    const placed = parts.map((module): LoraModule => {
      const rank = patterned(config.rankPattern, module.path) ?? config.rank;
      const alpha = patterned(config.alphaPattern, module.path) ?? config.alpha ?? 2 * config.rank;
      const scale = alpha / (config.rsLora ? Math.sqrt(rank) : rank);
      if (rank > Math.min(module.numInputs, module.numOutputs)) {
        throw new ConfigError(
          "adapter",
          `rank: expected at most ${Math.min(module.numInputs, module.numOutputs)} for ${module.path}, got ${rank}`,
        );
      }
      const part = { ...module, rank, scale, rankStart };
      rankStart += rank;
      return part;
    });
    return { place, modules: placed };
  });
}

/** The factors of every place, under their names. */
export function lowRankSpecs(places: readonly LoraProjectionPlace[]): ParameterSpec[] {
  const zero = { kind: "constant", value: 0 } as const;
  return places.flatMap(({ place, modules }) => {
    const rank = modules.reduce((total, module) => total + module.rank, 0);
    return [
      { name: lowRankA(place), shape: [rank, modules[0].numInputs], init: zero, decays: true },
      ...modules.map((module) => ({
        name: lowRankB(module),
        shape: [module.numOutputs, module.rank],
        init: zero,
        decays: true,
      })),
    ];
  });
}

/** Fills A as PEFT does (kaiming: uniform within 1 / sqrt(C)) and leaves B at zero. */
export function initialiseLowRank(
  store: ParameterStore,
  places: readonly LoraProjectionPlace[],
  { init, seed }: { init: LoraConfig["init"]; seed: number },
): void {
  store.initialise(seed);
  let counter = 0;
  for (const { place, modules } of places) {
    for (const { rank, rankStart, numInputs } of modules) {
      using part = store.get(lowRankA(place)).rows(rankStart, rankStart + rank);
      if (init === "kaiming") counter = fillUniform(part, { bound: 1 / Math.sqrt(numInputs), seed, counter });
      else {
        const std = init === "gaussian" ? 1 / rank : Math.sqrt(2 / (numInputs + rank));
        counter = fillNormal(part, { std, seed, counter });
      }
    }
  }
}

export function lowRankTensors(
  store: ParameterStore,
  places: readonly LoraProjectionPlace[],
): AdapterTensor[] {
  return places.flatMap(({ place, modules }) =>
    modules.flatMap((module) => [
      {
        name: `${module.path}.lora_A.weight`,
        tensor: store.get(lowRankA(place)).rows(module.rankStart, module.rankStart + module.rank),
      },
      { name: `${module.path}.lora_B.weight`, tensor: store.get(lowRankB(module)).alias() },
    ]),
  );
}

export function lowRankParts(store: ParameterStore, modules: readonly LoraModule[]): LowRankPart[] {
  return modules.map((module) => ({
    b: store.get(lowRankB(module)),
    rankStart: module.rankStart,
    outputStart: module.outputStart,
    scale: module.scale,
  }));
}

export class LoraAdapter extends Adapter {
  readonly config: LoraConfig;
  readonly parameters: ParameterStore;
  readonly places: readonly LoraProjectionPlace[];
  readonly #byPlace: ReadonlyMap<string, ProjectionAdapter>;

  constructor(
    decoder: Decoder,
    {
      config,
      modules,
      ...options
    }: { config: LoraConfig; modules: readonly TargetModule[] } & AdapterOptions,
  ) {
    super();
    this.config = config;
    this.places = loraPlaces(config, modules);
    this.parameters = new ParameterStore(decoder.head.device, lowRankSpecs(this.places), options);
    this.#byPlace = new Map(
      this.places.map(({ place, modules: placed }, index) => [
        placeKey(place),
        this.#projectionAdapter(place, { placed, index }),
      ]),
    );
  }

  #projectionAdapter(
    place: ProjectionPlace,
    { placed, index }: { placed: readonly LoraModule[]; index: number },
  ): ProjectionAdapter {
    const a = this.parameters.get(lowRankA(place));
    const parts = lowRankParts(this.parameters, placed);
    return {
      apply: (context, x, weights) =>
        lowRankLinear(context, x, {
          ...weights,
          update: { a, parts, input: this.dropped(context, x, index) },
        }),
    };
  }

  /** x after dropout, while training. */
  protected dropped(context: Context, x: Tensor, index: number): Tensor {
    const bits = this.dropoutAt(index, this.places.length);
    const probability = this.config.dropout;
    return bits === undefined || probability === 0 ? x : dropout(context, x, { probability, ...bits });
  }

  override projection(place: ProjectionPlace): ProjectionAdapter | undefined {
    return this.#byPlace.get(placeKey(place));
  }

  initialise(_context: Context, seed: number): void {
    initialiseLowRank(this.parameters, this.places, { init: this.config.init, seed });
  }

  tensors(_context: Context): AdapterTensor[] {
    return lowRankTensors(this.parameters, this.places);
  }
}
