/**
 * The modules that adapters go to, by the names of the model's own checkpoint ("model.layers.3.self_attn.q_proj"), and where each
 * lies in our fused projections. Names follow PEFT: a target is a whole path, its end, or either with wildcards.
 */
import { ConfigError, nearest } from "../../base/index.ts";
import type { DecoderConfig } from "../common/config.ts";
import type { ModelFamily } from "../common/family.ts";
import { projectionSites } from "../common/projection.ts";
import type { ProjectionPlace } from "../common/projection.ts";
import { layerNames, parameterSpecs } from "../common/specs.ts";

/** A linear module of a checkpoint. */
export interface TargetModule {
  /** "model.layers.0.self_attn.q_proj" */
  path: string;
  /** "q_proj" */
  name: string;
  place: ProjectionPlace;
  /** First row, and rows, of the fused projection that it is. */
  outputStart: number;
  numOutputs: number;
  numInputs: number;
}

export interface TargetSelection {
  /** Names, paths, wildcards, or one of the groups. */
  targets: readonly string[];
  exclude?: readonly string[] | undefined;
  /** Only these layers, from 0. */
  layers?: readonly number[] | undefined;
}

/** Names for several modules at once: NeMo's, and PEFT's "all-linear". */
const groups: Readonly<Record<string, readonly ProjectionPlace["site"][]>> = {
  all: projectionSites,
  "all-linear": projectionSites,
  attention: ["qkv", "output"],
  mlp: ["up", "down"],
  attention_qkv: ["qkv"],
  attention_dense: ["output"],
  mlp_fc1: ["up"],
  mlp_fc2: ["down"],
  linear_qkv: ["qkv"],
  linear_proj: ["output"],
  linear_fc1: ["up"],
  linear_fc2: ["down"],
};

/** Every linear module of the blocks, in the order of the layers. */
export function targetModules(family: ModelFamily, config: DecoderConfig): TargetModule[] {
  const places = new Map<string, ProjectionPlace>();
  for (let layer = 0; layer < config.numLayers; layer++)
    for (const site of projectionSites) places.set(layerNames(layer)[site], { layer, site });
  const widths = new Map(parameterSpecs(config).map(({ name, shape }) => [name, shape[1]]));
  return family.weightSlices(config).flatMap(({ name, parameter, rowStart, numRows }) => {
    const place = places.get(parameter);
    if (place === undefined) return [];
    const path = name.replace(/\.weight$/, "");
    const numInputs = widths.get(parameter) ?? 0;
    return [
      {
        path,
        name: path.slice(path.lastIndexOf(".") + 1),
        place,
        outputStart: rowStart,
        numOutputs: numRows,
        numInputs,
      },
    ];
  });
}

/** The modules that a selection names. Throws ConfigError for a target that is nowhere, with the nearest name. */
export function selectTargets(
  modules: readonly TargetModule[],
  { targets, exclude = [], layers }: TargetSelection,
): TargetModule[] {
  if (targets.length === 0) throw new ConfigError("adapter", "expected target modules, got none");
  const numLayers = 1 + Math.max(...modules.map(({ place }) => place.layer));
  for (const layer of layers ?? []) {
    if (layer >= numLayers)
      throw new ConfigError("adapter", `expected layers 0 to ${numLayers - 1}, got ${layer}`);
  }
  const inLayers = modules.filter(({ place }) => layers === undefined || layers.includes(place.layer));
  const named = (target: string): Set<TargetModule> => {
    const found = inLayers.filter((module) => matches(module, target));
    if (found.length === 0) throw unknownTarget(modules, target);
    return new Set(found);
  };
  const wanted = new Set(targets.flatMap((target) => [...named(target)]));
  const unwanted = new Set(exclude.flatMap((target) => [...named(target)]));
  const selected = inLayers.filter((module) => wanted.has(module) && !unwanted.has(module));
  if (selected.length === 0)
    throw new ConfigError("adapter", "expected target modules, got none after taking away the excluded ones");
  return selected;
}

function matches({ path, place }: TargetModule, target: string): boolean {
  const group = Object.hasOwn(groups, target) ? groups[target] : undefined;
  if (group !== undefined) return group.includes(place.site);
  if (!target.includes("*")) return path === target || path.endsWith(`.${target}`);
  const pattern = target.replace(/[.+?^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*");
  return new RegExp(`^(.*\\.)?${pattern}$`).test(path);
}

function unknownTarget(modules: readonly TargetModule[], target: string): ConfigError {
  const names = [...new Set(modules.map(({ name }) => name))];
  const near = nearest(target, [...names, ...Object.keys(groups)]);
  const known = `${names.join(", ")}, or a group: ${Object.keys(groups).slice(0, 4).join(", ")}`;
  return new ConfigError("adapter", `expected a module of the model, got '${target}'`, {
    hint: near === undefined ? `known: ${known}` : `did you mean '${near}'? known: ${known}`,
    fields: { target },
  });
}

/** Modules by the projection they are part of, in order. */
export function byProjection<Module extends TargetModule>(
  modules: readonly Module[],
): { place: ProjectionPlace; modules: Module[] }[] {
  const found = new Map<string, { place: ProjectionPlace; modules: Module[] }>();
  for (const module of modules) {
    const key = placeKey(module.place);
    const entry = found.get(key) ?? { place: module.place, modules: [] };
    entry.modules.push(module);
    found.set(key, entry);
  }
  return [...found.values()];
}

export function placeKey({ layer, site }: ProjectionPlace): string {
  return `layers.${layer}.${site}`;
}
