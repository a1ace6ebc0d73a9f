/** LoRA of NeMo as an adapter of ours: the file says ranks and scale, its tensors which modules. */
import { existsSync, statSync } from "node:fs";
import { CheckpointError } from "../../../base/index.ts";
import { isNemoAdapter, openNemoLora } from "../../../checkpoint/index.ts";
import { parseAdapterConfig } from "../config.ts";
import type { AdapterFolder } from "./description.ts";
import { component } from "./names.ts";

/** Whether a path is an adapter of NeMo, packed or unpacked. Throws CheckpointError, FileError. */
export function isNemoFile(path: string): boolean {
  if (!existsSync(path)) return false;
  const isFolder = statSync(path).isDirectory();
  return (isFolder ? existsSync(`${path}/model_config.yaml`) : path.endsWith(".nemo")) && isNemoAdapter(path);
}

/** Reads an adapter's configuration. Throws CheckpointError, ConfigError, FileError. */
export function readNemoFile(path: string): AdapterFolder {
  using lora = openNemoLora(path);
  const { rank, alpha, dropout, weights, baseModel } = lora;
  const modules = [...weights.names()].flatMap((name) => /^(.+)\.lora_A\.weight$/.exec(name)?.[1] ?? []);
  if (modules.length === 0)
    throw new CheckpointError(component, `expected tensors of LoRA in ${path}, got none`);
  return {
    config: parseAdapterConfig({ method: "lora", targets: modules, rank, alpha, dropout }),
    baseModel,
    openWeights: () => openNemoLora(path).weights,
  };
}
