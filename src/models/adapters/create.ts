/** Adapters by their configuration: the one place that knows all methods. */
import type { ParameterSpec } from "../../tensor/index.ts";
import type { DecoderConfig } from "../common/config.ts";
import type { Decoder } from "../common/decoder.ts";
import type { ModelFamily } from "../common/family.ts";
import type { AdaptedProjection } from "../common/memory.ts";
import { ConfigError } from "../../base/index.ts";
import type { Adapter, AdapterOptions } from "./adapter.ts";
import { BottleneckAdapter, bottleneckSpecs } from "./bottleneck.ts";
import type { AdapterConfig } from "./config.ts";
import { DoraAdapter, doraSpecs } from "./dora.ts";
import { Ia3Adapter, ia3Specs } from "./ia3.ts";
import type { Ia3Module } from "./ia3.ts";
import { LoraAdapter, loraPlaces, lowRankSpecs } from "./lora.ts";
import { PromptAdapter, promptSpecs } from "./prompt.ts";
import { byProjection, selectTargets, targetModules } from "./targets.ts";
import type { TargetModule } from "./targets.ts";

/** An adapter beside a decoder, zeroed: `initialise` or a file fills it. Throws ConfigError. */
export function createAdapter(
  decoder: Decoder,
  { family, config, ...options }: { family: ModelFamily; config: AdapterConfig } & AdapterOptions,
): Adapter {
  switch (config.method) {
    case "lora":
      return new LoraAdapter(decoder, {
        config,
        modules: lowRankModules(decoder.config, family, config),
        ...options,
      });
    case "dora":
      return new DoraAdapter(decoder, {
        config,
        modules: lowRankModules(decoder.config, family, config),
        ...options,
      });
    case "ia3":
      return new Ia3Adapter(decoder, {
        config,
        modules: ia3Modules(decoder.config, family, config),
        ...options,
      });
    case "houlsby":
    case "parallel":
      expectLayers(decoder.config, config.layers);
      return new BottleneckAdapter(decoder, { config, ...options });
    case "prompt-tuning":
    case "p-tuning":
      return new PromptAdapter(decoder, { config, ...options });
  }
}

/** What an adapter would train, without making it. Throws ConfigError. */
export function adapterSpecs(
  model: DecoderConfig,
  { family, config }: { family: ModelFamily; config: AdapterConfig },
): ParameterSpec[] {
  switch (config.method) {
    case "lora":
      return lowRankSpecs(loraPlaces(config, lowRankModules(model, family, config)));
    case "dora":
      return doraSpecs(loraPlaces(config, lowRankModules(model, family, config)));
    case "ia3":
      return ia3Specs(ia3Modules(model, family, config));
    case "houlsby":
    case "parallel":
      expectLayers(model, config.layers);
      return bottleneckSpecs(model, config);
    case "prompt-tuning":
    case "p-tuning":
      return promptSpecs(model, config);
  }
}

/** Projections that a method adds products of low rank to; undefined for one that does something else. Throws ConfigError. */
export function adaptedProjections(
  model: DecoderConfig,
  { family, config }: { family: ModelFamily; config: AdapterConfig },
): AdaptedProjection[] | undefined {
  if (config.method !== "lora" && config.method !== "dora") return undefined;
  return loraPlaces(config, lowRankModules(model, family, config)).map(({ place, modules }) => ({
    place,
    rank: modules.reduce((total, { rank }) => total + rank, 0),
  }));
}

function lowRankModules(
  config: DecoderConfig,
  family: ModelFamily,
  {
    targets,
    exclude,
    layers,
  }: { targets: readonly string[]; exclude: readonly string[]; layers?: readonly number[] | undefined },
): TargetModule[] {
  return selectTargets(targetModules(family, config), { targets, exclude, layers });
}

/** Keys, values and what the feed-forward's second matrix takes, where nothing else is said. */
function ia3Modules(
  config: DecoderConfig,
  family: ModelFamily,
  { targets, feedforward, layers }: Extract<AdapterConfig, { method: "ia3" }>,
): Ia3Module[] {
  const modules = targetModules(family, config);
  const names = new Set(modules.map(({ name }) => name));
  const usual = ["k_proj", "v_proj", "down_proj"].filter((name) => names.has(name));
  if (targets === undefined && usual.length < 3) {
    throw new ConfigError("adapter", `expected targets for ia3 on ${config.family}, got none`, {
      hint: `its modules: ${[...names].join(", ")}`,
    });
  }
  const chosen = selectTargets(modules, { targets: targets ?? usual, layers });
  const scaledInputs = feedforward ?? (targets === undefined ? ["down_proj"] : []);
  const inputs = new Set(
    scaledInputs.length === 0 ? [] : selectTargets(chosen, { targets: scaledInputs }).map(({ path }) => path),
  );
  for (const { modules: parts } of byProjection(chosen)) {
    const [first, second] = parts.filter(({ path }) => inputs.has(path));
    if (second !== undefined)
      throw new ConfigError(
        "adapter",
        `expected one of ${first.name} and ${second.name} in feedforward, got both`,
        {
          hint: "they read the same rows in one product",
        },
      );
  }
  return chosen.map((module) => ({ ...module, isFeedforward: inputs.has(module.path) }));
}

function expectLayers(config: DecoderConfig, layers: readonly number[] | undefined): void {
  for (const layer of layers ?? []) {
    if (layer >= config.numLayers)
      throw new ConfigError("adapter", `expected layers 0 to ${config.numLayers - 1}, got ${layer}`);
  }
}
