/**
 * Megatron's tensors under Hugging Face's names and back, as views: nothing is copied until a range is read. Layer norms are copied
 * unchanged (both sides store the gain minus one); query, key and value rows lie group by group in Megatron (the group's query heads,
 * one key, one value) and one after the other in Hugging Face (NeMo: collections/llm/gpt/model/nemotron.py).
 */
import { CheckpointError, ConfigError, formatShape, sameShape } from "../../base/index.ts";
import { cutBox, joinBoxes } from "../box.ts";
import type { Box } from "../box.ts";
import { storedByteLength, storedDtypeBytes, tensorTable } from "../source.ts";
import type { StoredTensor, TensorSource } from "../source.ts";
import { throughTo } from "./canonical.ts";
import { huggingFaceFamily, isGatedActivation } from "./config.ts";
import type { MegatronConfig } from "./config.ts";
import { gpt2Rows, gpt2View } from "./gpt2.ts";
import { embeddingName, finalNormName, layerName, layerTensors, outputName, positionsName } from "./names.ts";

/** Rows of one matrix in Megatron that are several in Hugging Face. */
interface RowPart {
  /** Hugging Face's name within the layer, without ".weight". */
  readonly name: string;
  /** Where the rows lie in the fused matrix seen as (numBlocks, block rows, width). */
  readonly box: Box;
}

/** One of Megatron's tensors: where it is in Hugging Face, and its shape. */
interface Entry {
  readonly megatron: string;
  readonly shape: readonly number[];
  /** One name, or the rows' names for a fused matrix. */
  readonly huggingFace: string | readonly RowPart[];
  /** For fused matrices, the shape that the boxes are in. */
  readonly blockShape: readonly number[];
}

/** Both spellings of every tensor of the model. Throws ConfigError for a model that no family has. */
function entriesOf(config: MegatronConfig, vocabSize: number): Entry[] {
  const { numLayers, width, tiesEmbeddings, maxPositions } = config;
  const family = huggingFaceFamily(config);
  const whole = (megatron: string, huggingFace: string, shape: readonly number[]): Entry => ({
    megatron,
    huggingFace,
    shape,
    blockShape: shape,
  });
  const norm = (megatron: string, huggingFace: string): Entry[] =>
    (family === "nemotron" || family === "gpt2" ? ["weight", "bias"] : ["weight"]).map((kind) =>
      whole(`${megatron}${kind}`, `${huggingFace}.${kind}`, [width]),
    );
  return [
    whole(embeddingName, "model.embed_tokens.weight", [vocabSize, width]),
    ...(family === "gpt2"
      ? [whole(positionsName, "model.embed_positions.weight", [maxPositions, width])]
      : []),
    ...Array.from({ length: numLayers }, (_, layer) => layerEntries(config, layer, { whole, norm })).flat(),
    ...norm(`${finalNormName}.`, "model.norm"),
    ...(tiesEmbeddings ? [] : [whole(outputName, "lm_head.weight", [vocabSize, width])]),
  ];
}

function layerEntries(
  config: MegatronConfig,
  layer: number,
  {
    whole,
    norm,
  }: {
    whole: (megatron: string, huggingFace: string, shape: readonly number[]) => Entry;
    norm: (megatron: string, huggingFace: string) => Entry[];
  },
): Entry[] {
  const { width, ffnWidth, numHeads, headDim } = config;
  const mine = (name: string): string => layerName(layer, name);
  const theirs = `model.layers.${layer}`;
  const kinds = (hasBias: boolean): string[] => (hasBias ? ["weight", "bias"] : ["weight"]);
  const columns = (kind: string, length: number): number[] => (kind === "weight" ? [length] : []);
  return [
    ...norm(mine(layerTensors.attentionNorm), `${theirs}.input_layernorm`),
    ...kinds(config.hasQkvBias).map((kind) =>
      qkvEntry(config, { kind, megatron: mine(layerTensors.qkv), theirs }),
    ),
    ...kinds(config.hasLinearBias).map((kind) =>
      whole(`${mine(layerTensors.attentionOutput)}${kind}`, `${theirs}.self_attn.o_proj.${kind}`, [
        width,
        ...columns(kind, numHeads * headDim),
      ]),
    ),
    ...norm(mine(layerTensors.mlpNorm), `${theirs}.post_attention_layernorm`),
    ...kinds(config.hasLinearBias).map((kind) =>
      upEntry(config, { kind, megatron: mine(layerTensors.up), theirs }),
    ),
    ...kinds(config.hasLinearBias).map((kind) =>
      whole(`${mine(layerTensors.down)}${kind}`, `${theirs}.mlp.down_proj.${kind}`, [
        width,
        ...columns(kind, ffnWidth),
      ]),
    ),
  ];
}

interface FusedContext {
  kind: string;
  megatron: string;
  theirs: string;
}

function qkvEntry(config: MegatronConfig, { kind, megatron, theirs }: FusedContext): Entry {
  const { numHeads, numKvHeads, headDim, width } = config;
  const perGroup = numHeads / numKvHeads;
  const columns = kind === "weight" ? width : 1;
  const part = (name: string, start: number, length: number): RowPart => ({
    name: `${theirs}.self_attn.${name}.${kind}`,
    box: { start: [0, start * headDim, 0], shape: [numKvHeads, length * headDim, columns] },
  });
  return {
    megatron: `${megatron}${kind}`,
    shape: [(numHeads + 2 * numKvHeads) * headDim, ...(kind === "weight" ? [width] : [])],
    blockShape: [numKvHeads, (perGroup + 2) * headDim, columns],
    huggingFace: [part("q_proj", 0, perGroup), part("k_proj", perGroup, 1), part("v_proj", perGroup + 1, 1)],
  };
}

function upEntry(config: MegatronConfig, { kind, megatron, theirs }: FusedContext): Entry {
  const { ffnWidth, width } = config;
  const columns = kind === "weight" ? width : 1;
  const numParts = isGatedActivation(config.activation) ? 2 : 1;
  const names = numParts === 2 ? ["gate_proj", "up_proj"] : ["up_proj"];
  return {
    megatron: `${megatron}${kind}`,
    shape: [numParts * ffnWidth, ...(kind === "weight" ? [width] : [])],
    blockShape: [numParts, ffnWidth, columns],
    huggingFace: names.map((name, i) => ({
      name: `${theirs}.mlp.${name}.${kind}`,
      box: { start: [i, 0, 0], shape: [1, ffnWidth, columns] },
    })),
  };
}

/** Rows of a box of (blocks, rows, columns), as a matrix or, from a bias, a vector. */
function partShape({ shape: [numBlocks, numRows] }: Box, whole: readonly number[]): number[] {
  return [numBlocks * numRows, ...whole.slice(1)];
}

function expectShape(source: TensorSource, name: string, shape: readonly number[]): StoredTensor {
  const tensor = throughTo(source, name);
  if (sameShape(tensor.shape, shape)) return tensor;
  throw new CheckpointError(
    "megatron",
    `expected '${name}' of shape ${formatShape(shape)} in ${source.path}, got ${formatShape(tensor.shape)}`,
    { hint: "the weights are of another model than the configuration says", fields: { name } },
  );
}

/** Rows of the embedding in Megatron, which may be padded; the output layer must have as many. */
export function storedVocabSize(
  canonical: TensorSource,
  { tiesEmbeddings }: { tiesEmbeddings: boolean },
): number {
  const [numRows] = canonical.info(embeddingName).shape;
  const numOutputs = tiesEmbeddings ? numRows : canonical.info(outputName).shape[0];
  if (numRows === numOutputs) return numRows;
  throw new CheckpointError(
    "megatron",
    `expected embedding and output layer of one vocabulary in ${canonical.path}, got ${numRows} and ${numOutputs} rows`,
  );
}

/**
 * The tensors of a canonical Megatron source (canonical.ts) under Hugging Face's names. `vocabSize` drops the padding rows after it.
 * Disposing the view disposes the source. Throws CheckpointError naming tensor, expected and found shape; ConfigError.
 */
export function huggingFaceView(
  canonical: TensorSource,
  config: MegatronConfig,
  { vocabSize }: { vocabSize?: number } = {},
): TensorSource {
  const stored = storedVocabSize(canonical, config);
  const numRows = vocabSize ?? stored;
  if (numRows > stored) {
    throw new ConfigError(
      "megatron",
      `vocabSize: expected at most the ${stored} rows of the embedding, got ${numRows}`,
    );
  }
  const table = new Map<string, StoredTensor>();
  for (const { megatron, shape, huggingFace, blockShape } of entriesOf(config, stored)) {
    const tensor = expectShape(canonical, megatron, shape);
    const { dtype, readRange } = tensor;
    if (typeof huggingFace === "string") {
      const kept =
        shape[0] === stored && shape.length === 2 && isVocabulary(megatron) ? [numRows, shape[1]] : shape;
      table.set(huggingFace, { dtype, shape: kept, byteLength: storedByteLength(dtype, kept), readRange });
      continue;
    }
    for (const { name, box } of huggingFace) {
      const rows = partShape(box, shape);
      const whole = { shape: blockShape, itemBytes: storedDtypeBytes[dtype], readRange };
      table.set(name, {
        dtype,
        shape: rows,
        byteLength: storedByteLength(dtype, rows),
        readRange: cutBox(whole, box),
      });
    }
  }
  expectNoOthers(canonical, new Set(entriesOf(config, stored).map(({ megatron }) => megatron)), config);
  const view = tensorTable(canonical.path, table, {
    metadata: canonical.metadata,
    release: () => canonical.dispose(),
  });
  return huggingFaceFamily(config) === "gpt2" ? gpt2View(view, config.numLayers) : view;
}

function isVocabulary(megatron: string): boolean {
  return megatron === embeddingName || megatron === outputName;
}

/** A tensor that the configuration does not speak of would be lost without a word. */
function expectNoOthers(
  canonical: TensorSource,
  known: ReadonlySet<string>,
  { tiesEmbeddings }: MegatronConfig,
): void {
  for (const name of canonical.names()) {
    if (known.has(name) || (tiesEmbeddings && name === outputName)) continue;
    throw new CheckpointError(
      "megatron",
      `expected only tensors of the configuration in ${canonical.path}, got '${name}'`,
      {
        hint: "the weights are of another model than the configuration says",
        fields: { name },
      },
    );
  }
}

/**
 * The tensors of a Hugging Face source under Megatron's names, `prefix` before them, as distributed checkpoints have them: the layers of each
 * kind stacked on a new first axis. Disposing the view disposes the source. Throws CheckpointError, ConfigError.
 */
export function megatronView(
  huggingFace: TensorSource,
  config: MegatronConfig,
  { prefix = "model." }: { prefix?: string } = {},
): TensorSource {
  const isGpt2 = huggingFaceFamily(config) === "gpt2";
  const source = isGpt2 ? gpt2Rows(huggingFace, config.numLayers) : huggingFace;
  const [vocabSize] = source.info("model.embed_tokens.weight").shape;
  const single = new Map<string, StoredTensor>();
  for (const { megatron, shape, huggingFace, blockShape } of entriesOf(config, vocabSize)) {
    if (typeof huggingFace === "string") {
      single.set(megatron, expectShape(source, huggingFace, shape));
      continue;
    }
    const parts = huggingFace.map(({ name, box }) => ({
      box,
      tensor: expectShape(source, name, partShape(box, shape)),
    }));
    const [{ tensor }] = parts;
    const readRange = joinBoxes(
      blockShape,
      storedDtypeBytes[tensor.dtype],
      parts.map((part) => ({ box: part.box, readRange: part.tensor.readRange })),
    );
    single.set(megatron, {
      dtype: tensor.dtype,
      shape,
      byteLength: storedByteLength(tensor.dtype, shape),
      readRange,
    });
  }
  const table = new Map(
    [...stacked(single, config.numLayers)].map(([name, tensor]) => [`${prefix}${name}`, tensor]),
  );
  return tensorTable(source.path, table, { metadata: source.metadata, release: () => source.dispose() });
}

function stacked(single: ReadonlyMap<string, StoredTensor>, numLayers: number): Map<string, StoredTensor> {
  const table = new Map<string, StoredTensor>();
  for (const [name, tensor] of single) {
    const rest = /^decoder\.layers\.\d+\.(.+)$/.exec(name)?.[1];
    if (rest === undefined) table.set(name, tensor);
    else if (name === layerName(0, rest)) {
      const { dtype, shape, byteLength } = tensor;
      const layers = Array.from(
        { length: numLayers },
        (_, layer) => single.get(layerName(layer, rest)) ?? tensor,
      );
      const readRange = joinBoxes(
        [numLayers, byteLength],
        1,
        layers.map((layer, i) => ({
          box: { start: [i, 0], shape: [1, byteLength] },
          readRange: layer.readRange,
        })),
      );
      table.set(`decoder.layers.${rest}`, {
        dtype,
        shape: [numLayers, ...shape],
        byteLength: numLayers * byteLength,
        readRange,
      });
    }
  }
  return table;
}
