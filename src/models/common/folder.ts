/** Writes model folders as Hugging Face has them: config.json, safetensors, tokenizer files. */
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { dtypeBytes, invariant, makeFolder, withFileErrors, writeText } from "../../base/index.ts";
import { singleFileName, transposeBytes, writeSafetensors } from "../../checkpoint/index.ts";
import { StackedWeight } from "../../tensor/index.ts";
import type { Tensor } from "../../tensor/index.ts";
import { configText } from "./configText.ts";
import type { Decoder } from "./decoder.ts";
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
  writeText("model", join(folder, "config.json"), configText(json));
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
  const headers = slices.map(({ name, parameter, numRows, isTransposed }) => {
    const rowShape = weightOf(decoder, parameter).shape.slice(1);
    const shape = [numRows, ...rowShape];
    return { name, dtype, shape: isTransposed === true ? shape.toReversed() : shape };
  });
  writeSafetensors(path, headers, {
    metadata: { format: "pt" },
    *dataOf(name) {
      const slice = byName.get(name);
      invariant(slice !== undefined, `weight ${name}`);
      for (using tensor of runsOf(decoder, slice))
        yield slice.isTransposed === true ? transposed(tensor) : tensor.toBytes();
    },
  });
}

function weightOf({ parameters, stacked }: Decoder, name: string): Tensor | StackedWeight {
  return stacked.get(name) ?? parameters.get(name);
}

/** The rows of a slice, in one piece but where they lie in several places. */
function* runsOf(decoder: Decoder, { parameter, rowStart, numRows }: WeightSlice): Generator<Tensor> {
  const weight = weightOf(decoder, parameter);
  const end = rowStart + numRows;
  if (weight instanceof StackedWeight) yield* weight.runs(rowStart, end);
  else yield weight.rows(rowStart, end);
}

function transposed(tensor: Tensor): Uint8Array {
  const [numRows, numColumns] = tensor.shape;
  return transposeBytes(tensor.toBytes(), { numRows, numColumns, itemBytes: dtypeBytes(tensor.dtype) });
}
