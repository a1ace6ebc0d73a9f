/** Small random models as folders, with a tokenizer, for tests of whole programs. */
import { copyFileSync, mkdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { FloatDtype } from "../../src/base/index.ts";
import { openCheckpoint } from "../../src/checkpoint/index.ts";
import { openDevice } from "../../src/device/index.ts";
import {
  checkDecoderConfig,
  Decoder,
  modelFamily,
  modelPreset,
  parameterSpecs,
  saveModelFolder,
} from "../../src/models/index.ts";
import type { DecoderConfig } from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";

export const fixture = (name: string): string =>
  fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));

/** Tokens of test/fixtures/sentencepiece/bpe-nemotron.model. */
export const nemotronVocabSize = 900;

/** A preset's family at a width that any test can afford. */
export function smallConfig(preset: string, changes: Partial<DecoderConfig> = {}): DecoderConfig {
  const base = modelPreset(preset);
  const [width, headDim] = [24, 8];
  const isLearned = base.hasLearnedPositions;
  return checkDecoderConfig({
    ...base,
    vocabSize: nemotronVocabSize,
    width,
    ffnWidth: 40,
    numLayers: 2,
    numHeads: 3,
    numKvHeads: isLearned ? 3 : 1,
    headDim,
    maxPositions: 64,
    rotary: base.rotary && { ...base.rotary, rotaryDim: base.rotary.rotaryDim === base.headDim ? 8 : 4 },
    ...changes,
  });
}

/** Writes a model of random weights, and a SentencePiece model beside it. */
export async function writeModel(
  folder: string,
  config: DecoderConfig,
  {
    dtype = "f32",
    tokenizer = "sentencepiece/bpe-nemotron.model",
  }: { dtype?: FloatDtype; tokenizer?: string } = {},
): Promise<void> {
  using device = await openDevice({ kind: "reference" });
  const context = new Context(device);
  using decoder = new Decoder(context, config, { dtype });
  decoder.parameters.initialise(5);
  saveModelFolder(decoder, folder);
  mkdirSync(folder, { recursive: true });
  copyFileSync(
    fixture(tokenizer),
    join(folder, tokenizer.endsWith(".json") ? "tokenizer.json" : "tokenizer.model"),
  );
}

/** Every tensor of a checkpoint under Hugging Face's names: dtype, shape and bytes as one text. */
export async function contents(path: string): Promise<Map<string, string>> {
  using checkpoint = await openCheckpoint(path);
  const { weights } = checkpoint;
  return new Map(
    [...weights.names()].toSorted().map((name) => {
      const { dtype, shape } = weights.info(name);
      return [name, `${dtype} ${shape.join("x")} ${Buffer.from(weights.read(name)).toString("base64")}`];
    }),
  );
}

/** A model with an embedding and a head of any size, all zeros, that take no disk. */
export function writeSparseModel(folder: string, vocabSize: number): void {
  const width = 24 * 64;
  const config = smallConfig("nemotron-tiny", { vocabSize, width, numLayers: 1 });
  const family = modelFamily(config);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "config.json"), JSON.stringify(family.writeConfig(config, "bfloat16")));
  copyFileSync(fixture("sentencepiece/bpe-nemotron.model"), join(folder, "tokenizer.model"));
  const shapes = new Map(parameterSpecs(config).map(({ name, shape }) => [name, shape]));
  let offset = 0;
  const entries = family.weightSlices(config).map(({ name, parameter, numRows }) => {
    const shape = [numRows, ...(shapes.get(parameter) ?? []).slice(1)];
    const begin = offset;
    offset += 2 * shape.reduce((product, length) => product * length, 1);
    return [name, { dtype: "BF16", shape, data_offsets: [begin, offset] }] as const;
  });
  const header = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(header.byteLength));
  const path = join(folder, "model.safetensors");
  writeFileSync(path, Buffer.concat([prefix, header]));
  truncateSync(path, 8 + header.byteLength + offset);
}
