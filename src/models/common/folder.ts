/**
 * Model folders as Hugging Face has them: config.json, safetensors, tokenizer files. Weights go between disk and device a
 * parameter at a time, so that neither side holds a second copy of the model.
 */
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import {
  CheckpointError,
  decodeValues,
  dtypeBytes,
  invariant,
  makeFolder,
  readJson,
  withFileErrors,
  writeText,
} from "../../base/index.ts";
import { openCheckpointFolder, singleFileName, writeSafetensors } from "../../checkpoint/index.ts";
import type { TensorSource } from "../../checkpoint/index.ts";
import type { Context, Tensor } from "../../tensor/index.ts";
import type { Decoder } from "./decoder.ts";
import type { DecoderConfig } from "./config.ts";
import type { ModelFamily, WeightSlice } from "./family.ts";

const dtypeNames: Readonly<Record<string, string>> = { f32: "float32", bf16: "bfloat16", f16: "float16" };

/** Writes the decoder as a model folder; `extraFiles` maps file names to files to copy (the tokenizer). Throws FileError. */
export function writeModelFolder(
  family: ModelFamily,
  decoder: Decoder,
  { folder, extraFiles }: { folder: string; extraFiles: Readonly<Record<string, string>> },
): void {
  const { config } = decoder;
  makeFolder("model", folder);
  writeWeights(decoder, family.weightSlices(config), join(folder, singleFileName));
  const json = family.writeConfig(config, dtypeNames[decoder.dtype] ?? decoder.dtype);
  writeText("model", join(folder, "config.json"), `${JSON.stringify(json, undefined, 2)}\n`);
  const generation = {
    bos_token_id: config.bosId,
    eos_token_id: config.eosId,
    pad_token_id: config.padId,
    do_sample: true,
  };
  writeText("model", join(folder, "generation_config.json"), `${JSON.stringify(generation, undefined, 2)}\n`);
  for (const [name, source] of Object.entries(extraFiles)) {
    withFileErrors("model", "a readable file", source, () => copyFileSync(source, join(folder, name)));
  }
}

function writeWeights(decoder: Decoder, slices: readonly WeightSlice[], path: string): void {
  const dtype = decoder.dtype;
  const byName = new Map(slices.map((slice) => [slice.name, slice]));
  const headers = slices.map(({ name, parameter, numRows }) => {
    const rowShape = decoder.parameters.get(parameter).shape.slice(1);
    return { name, dtype, shape: [numRows, ...rowShape] };
  });
  writeSafetensors(path, headers, {
    metadata: { format: "pt" },
    *dataOf(name) {
      const slice = byName.get(name);
      invariant(slice !== undefined, `weight ${name}`);
      using tensor = sliceOf(decoder, slice);
      yield tensor.toBytes();
    },
  });
}

function sliceOf(decoder: Decoder, { parameter, rowStart, numRows }: WeightSlice): Tensor {
  return decoder.parameters.get(parameter).rows(rowStart, rowStart + numRows);
}

/** Reads config.json of a model folder. Throws FileError, ConfigError. */
export function readModelConfig(family: ModelFamily, folder: string): DecoderConfig {
  return family.readConfig(readJson("model", join(folder, "config.json")));
}

/** Fills the decoder's weights from a model folder, converting dtypes. Throws CheckpointError naming file and tensor. */
export function readModelWeights(
  context: Context,
  { family, decoder, folder }: { family: ModelFamily; decoder: Decoder; folder: string },
): void {
  using source = openCheckpointFolder(folder);
  for (const slice of family.weightSlices(decoder.config)) {
    const tensor = sliceOf(decoder, slice);
    try {
      fill(context, tensor, { source, name: slice.name });
    } finally {
      tensor.dispose();
    }
  }
}

function fill(
  context: Context,
  tensor: Tensor,
  { source, name }: { source: TensorSource; name: string },
): void {
  const info = source.info(name);
  if (info.shape.join() !== tensor.shape.join()) {
    throw new CheckpointError(
      "model",
      `expected ${name} of shape (${tensor.shape.join(", ")}), got (${info.shape.join(", ")})`,
      {
        hint: "the weights are of another model than config.json says",
      },
    );
  }
  const bytes = source.read(name);
  if (info.dtype === tensor.dtype) {
    tensor.setBytes(bytes);
    return;
  }
  if (info.dtype !== "f32" && info.dtype !== "bf16" && info.dtype !== "f16") {
    throw new CheckpointError("model", `expected ${name} in f32, bf16 or f16, got ${info.dtype}`);
  }
  const { dtype } = info;
  context.scope(() => {
    const stored = context.empty(tensor.shape, dtype);
    if (context.device.supports("convert", { x: dtype, y: tensor.dtype })) {
      stored.setBytes(bytes);
      context.device.run("convert", { x: stored, y: tensor, numElements: tensor.numElements });
    } else {
      tensor.set(decodeValues(dtype, bytes.subarray(0, tensor.numElements * dtypeBytes(dtype))));
    }
  });
}
