/**
 * Adapter folders. LoRA, DoRA, IA3 and virtual tokens are PEFT's: adapter_config.json and adapter_model.safetensors, tensors named
 * "base_model.model.PATH.lora_A.weight" and so on ("prompt_embeddings" alone for virtual tokens). Houlsby and parallel adapters, which PEFT
 * does not have, are ours: nautilus_adapter.json and the same tensor file, tensors named "layers.N.attention.adapter.down.weight" and
 * so on (docs/adapters.md). LoRA in NeMo's files is read, not written (nemoFile.ts).
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import {
  CheckpointError,
  decodeValues,
  invariant,
  makeFolder,
  OutOfMemoryError,
  readJson,
  writeText,
} from "../../../base/index.ts";
import { openSafetensors, writeSafetensors } from "../../../checkpoint/index.ts";
import type { TensorSource } from "../../../checkpoint/index.ts";
import type { Context, Tensor } from "../../../tensor/index.ts";
import type { Decoder } from "../../common/decoder.ts";
import type { ModelFamily } from "../../common/family.ts";
import type { Adapter } from "../adapter.ts";
import { parseAdapterConfig } from "../config.ts";
import { createAdapter } from "../create.ts";
import { expectDoraBase } from "../dora.ts";
import { targetModules } from "../targets.ts";
import { component, ownConfigName, peftConfigName, peftPrefix, promptTensor, weightsName } from "./names.ts";
import type { AdapterFolder } from "./description.ts";
import { isNemoFile, readNemoFile } from "./nemoFile.ts";
import { adapterConfigOf, parsePeftConfig, writePeftConfig } from "./peftConfig.ts";

const formatVersion = 1;
const ownSchema = z.strictObject({
  formatVersion: z.literal(formatVersion),
  baseModel: z.string().optional(),
  config: z.unknown(),
});

/** Whether there is an adapter: in a folder, or in a file of NeMo. Throws FileError, CheckpointError for a damaged file of NeMo. */
export function isAdapterFolder(folder: string): boolean {
  return isNemoFile(folder) || hasAdapterFiles(folder);
}

function hasAdapterFiles(folder: string): boolean {
  return [peftConfigName, ownConfigName].some((name) => existsSync(join(folder, name)));
}

/** Reads an adapter's configuration. Throws FileError, CheckpointError, ConfigError. */
export function readAdapterFolder(folder: string): AdapterFolder {
  if (isNemoFile(folder)) return readNemoFile(folder);
  const weightsPath = join(folder, weightsName);
  const openWeights = (): TensorSource => openSafetensors(weightsPath);
  if (existsSync(join(folder, ownConfigName))) {
    const path = join(folder, ownConfigName);
    const own = ownSchema.safeParse(readJson(component, path));
    if (!own.success)
      throw new CheckpointError(
        component,
        `expected an adapter of format ${formatVersion} in ${path}, got another`,
      );
    return { config: parseAdapterConfig(own.data.config), baseModel: own.data.baseModel, openWeights };
  }
  const path = join(folder, peftConfigName);
  if (!existsSync(path)) {
    throw new CheckpointError(
      component,
      `expected an adapter folder at ${folder}, got ${existsSync(folder) ? `one without ${peftConfigName}` : "nothing there"}`,
    );
  }
  const peft = parsePeftConfig(readJson(component, path), path);
  using source = openWeights();
  const modules = [...source.names()].flatMap((name) => {
    const found = /^(?:base_model\.model\.)?(.+)\.(?:lora_A\.weight|ia3_l)$/.exec(name)?.[1];
    return found === undefined ? [] : [{ path: found, shape: source.info(name).shape }];
  });
  if (modules.length === 0 && ["LORA", "IA3"].includes(peft.peft_type))
    throw new CheckpointError(component, `expected tensors of ${peft.peft_type} in ${weightsPath}, got none`);
  return {
    config: adapterConfigOf(peft, { modules, path }),
    baseModel: peft.base_model_name_or_path ?? undefined,
    openWeights,
  };
}

/** Opens an adapter beside its base. Throws CheckpointError when it is of another base, naming the tensor; ConfigError for DoRA on a quantised one. */
export function loadAdapter(
  context: Context,
  decoder: Decoder,
  {
    family,
    folder,
    gradientDtype,
  }: { family: ModelFamily; folder: string; gradientDtype?: "f32" | "bf16" | undefined },
): Adapter {
  const { config, openWeights } = readAdapterFolder(folder);
  const { dtype } = decoder;
  invariant(dtype === "f32" || dtype === "bf16", "a decoder in f32 or bf16");
  const adapter = createForFile(decoder, { family, config, folder, dtype, gradientDtype });
  try {
    using source = openWeights();
    fillAdapter(context, adapter, source);
    return adapter;
  } catch (error) {
    adapter.dispose();
    throw error;
  }
}

function createForFile(
  decoder: Decoder,
  { folder, ...options }: Parameters<typeof createAdapter>[1] & { folder: string },
): Adapter {
  if (options.config.method === "dora") expectDoraBase(decoder);
  try {
    return createAdapter(decoder, options);
  } catch (error) {
    if (error instanceof OutOfMemoryError) throw error;
    throw new CheckpointError(
      component,
      `expected an adapter of this model in ${folder}, got one of another`,
      {
        hint: error instanceof Error ? error.message : "check --model",
        cause: error,
      },
    );
  }
}

/** Fills an adapter's parameters from a file of the same method. Throws CheckpointError. */
export function fillAdapter(context: Context, adapter: Adapter, source: TensorSource): void {
  const known = new Set(source.names());
  const used = new Set<string>();
  const tensors = adapter.tensors(context);
  try {
    for (const { name, tensor } of tensors) {
      const stored = [`${peftPrefix}${name}`, name].find((candidate) => known.has(candidate));
      if (stored === undefined) {
        throw new CheckpointError(component, `expected ${peftPrefix}${name} in ${source.path}, got none`, {
          hint: "the adapter is of another model or damaged",
        });
      }
      used.add(stored);
      fillTensor(tensor, { source, name: stored });
    }
  } finally {
    for (const { tensor } of tensors) tensor.dispose();
  }
  const left = [...known].find((name) => !used.has(name));
  if (left !== undefined)
    throw new CheckpointError(component, `expected no tensor ${left} in ${source.path}, got one`, {
      hint: "the adapter is of another model",
    });
}

function fillTensor(target: Tensor, { source, name }: { source: TensorSource; name: string }): void {
  const { dtype, shape } = source.info(name);
  if (shape.join() !== target.shape.join()) {
    throw new CheckpointError(
      component,
      `expected ${name} of shape (${target.shape.join(", ")}), got (${shape.join(", ")}) in ${source.path}`,
      { hint: "the adapter is of another base model" },
    );
  }
  if (dtype !== "f32" && dtype !== "bf16" && dtype !== "f16")
    throw new CheckpointError(component, `expected ${name} in f32, bf16 or f16, got ${dtype}`);
  if (dtype === target.dtype) target.setBytes(source.read(name));
  else target.set(decodeValues(dtype, source.read(name)));
}

/** Writes an adapter's folder: configuration and tensors. Throws FileError. */
export function saveAdapter(
  context: Context,
  adapter: Adapter,
  {
    decoder,
    family,
    folder,
    baseModel,
  }: { decoder: Decoder; family: ModelFamily; folder: string; baseModel: string },
): void {
  makeFolder(component, folder);
  const tensors = adapter.tensors(context);
  try {
    const isOurs = adapter.config.method === "houlsby" || adapter.config.method === "parallel";
    const named = tensors.map(({ name, tensor }) => {
      const isBare = isOurs || name === promptTensor;
      return { name: isBare ? name : `${peftPrefix}${name}`, tensor };
    });
    const paths = new Set(
      tensors.map(({ name }) =>
        name.replace(/\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector|ia3_l)$/, ""),
      ),
    );
    const all = targetModules(family, decoder.config);
    const peft = writePeftConfig({
      config: adapter.config,
      model: decoder.config,
      chosen: all.filter(({ path }) => paths.has(path)),
      all,
      isTransposed: family.weightSlices(decoder.config).some((slice) => slice.isTransposed === true),
      baseModel,
    });
    const [name, content] =
      peft === undefined
        ? [ownConfigName, { formatVersion, baseModel, config: adapter.config }]
        : [peftConfigName, peft];
    writeTensors(join(folder, weightsName), named);
    writeText(component, join(folder, name), `${JSON.stringify(content, undefined, 2)}\n`);
  } finally {
    for (const { tensor } of tensors) tensor.dispose();
  }
}

function writeTensors(path: string, tensors: readonly { name: string; tensor: Tensor }[]): void {
  const byName = new Map(tensors.map(({ name, tensor }) => [name, tensor]));
  const headers = tensors.map(({ name, tensor }) => {
    invariant(tensor.dtype === "f32" || tensor.dtype === "bf16", "an adapter in f32 or bf16");
    return { name, dtype: tensor.dtype, shape: tensor.shape };
  });
  writeSafetensors(path, headers, {
    metadata: { format: "pt" },
    *dataOf(name) {
      const tensor = byName.get(name);
      if (tensor !== undefined) yield tensor.toBytes();
    },
  });
}
