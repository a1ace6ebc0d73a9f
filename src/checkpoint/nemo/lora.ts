/**
 * LoRA adapters in NeMo's files: a `.nemo` (or the same unpacked) with `model_config.yaml`, whose `peft` section says what it is, and the
 * factors of each layer, of one rank or of a grid of ranks (NeMo 1: nlp/modules/common/megatron/adapters/parallel_adapters.py,
 * mcore_mixins.py). They come out under PEFT's names: of a fused query, key and value each gets the same A and its own rows of B, which lie
 * group by group as those of the weight do; the "canonical" variant has an A and a B for each.
 */
import { statSync } from "node:fs";
import { z } from "zod";
import { CheckpointError, parseConfig, withFileErrors } from "../../base/index.ts";
import { cutBox, joinBoxes } from "../box.ts";
import { openFileBytes } from "../bytes.ts";
import { folderTree, readTreeText } from "../fileTree.ts";
import type { FileTree } from "../fileTree.ts";
import { huggingFaceFamily, isGatedActivation } from "../megatron/config.ts";
import type { MegatronConfig } from "../megatron/config.ts";
import { rankGrid } from "../megatron/ranks.ts";
import { storedByteLength, storedDtypeBytes, tensorTable } from "../source.ts";
import type { StoredTensor, TensorSource } from "../source.ts";
import { readTar } from "../tar.ts";
import { readTorchFile } from "../torch/torchFile.ts";
import { readNemo1Config, yamlObject } from "./config.ts";

const component = "nemo";
const configFile = "model_config.yaml";

export interface NemoLora extends Disposable {
  readonly path: string;
  readonly rank: number;
  readonly alpha: number;
  readonly dropout: number;
  /** The base that it was trained on, as NeMo's configuration names it. */
  readonly baseModel: string | undefined;
  /** "model.layers.0.self_attn.q_proj.lora_A.weight" and so on. */
  readonly weights: TensorSource;
}

const peftSchema = z.looseObject({
  peft_scheme: z.string().nullish(),
  lora_tuning: z
    .looseObject({
      adapter_dim: z.int().positive(),
      alpha: z.number().positive().nullish(),
      adapter_dropout: z.number().nullish(),
    })
    .nullish(),
});
const modelSchema = z.looseObject({
  restore_from_path: z.string().nullish(),
  peft: peftSchema.nullish(),
});

/** Whether the file or folder at `path` is an adapter of NeMo, by its configuration. Throws CheckpointError, FileError. */
export function isNemoAdapter(path: string): boolean {
  using tree = openTree(path);
  if (!tree.has(configFile)) return false;
  return yamlObject(configFile, readTreeText(tree, configFile))["peft"] != null;
}

/** Opens a LoRA adapter of NeMo. Throws CheckpointError, ConfigError, FileError. */
export function openNemoLora(path: string): NemoLora {
  const opened: Disposable[] = [];
  const release = (): void => {
    for (const file of opened.toReversed()) file[Symbol.dispose]();
  };
  try {
    const tree = openTree(path);
    opened.push(tree);
    const text = readTreeText(tree, configFile);
    const { peft, restore_from_path: base } = parseConfig(
      configFile,
      modelSchema,
      yamlObject(configFile, text),
    );
    const lora = peft?.lora_tuning;
    if (peft?.peft_scheme !== "lora" || lora == null) {
      throw new CheckpointError(
        component,
        `expected peft_scheme lora in ${path}, got ${peft?.peft_scheme ?? "none"}`,
        { hint: "Nautilus reads NeMo's LoRA adapters; convert others to PEFT's files" },
      );
    }
    const { config } = readNemo1Config(text);
    const stages = rankGrid(tree).map((ranks) =>
      ranks.map(({ file }) => {
        const bytes = tree.open(file);
        opened.push(bytes);
        return readTorchFile(bytes).tensors;
      }),
    );
    const table = loraTable(path, { stages, config });
    return {
      path,
      rank: lora.adapter_dim,
      alpha: lora.alpha ?? lora.adapter_dim,
      dropout: lora.adapter_dropout ?? 0,
      baseModel: base ?? undefined,
      weights: tensorTable(path, table, { release }),
      [Symbol.dispose]: release,
    };
  } catch (error) {
    release();
    throw error;
  }
}

/** The members of a tar, which lie in the file, or of a folder. */
function openTree(path: string): FileTree & Disposable {
  const isFolder = withFileErrors(component, "an adapter", path, () => statSync(path).isDirectory());
  if (isFolder) return { ...folderTree(path), [Symbol.dispose]: () => {} };
  const bytes = openFileBytes(path);
  try {
    const head = new Uint8Array(2);
    if (bytes.byteLength >= head.length) bytes.readInto(head, 0);
    if (head[0] === 0x1f && head[1] === 0x8b) {
      throw new CheckpointError(component, `expected a plain tar at ${path}, got a gzipped one`, {
        hint: "unpack it and give the folder",
      });
    }
    return { ...readTar(bytes), path, [Symbol.dispose]: () => bytes[Symbol.dispose]() };
  } catch (error) {
    bytes[Symbol.dispose]();
    throw error;
  }
}

/** Where rows of a B belong: a module, and its rows of every block. */
interface Target {
  readonly module: string;
  readonly start: number;
  readonly numRows: number;
}

/** One of NeMo's adapters in a layer, as one tensor rank has it. */
interface Placement {
  readonly targets: readonly Target[];
  readonly blockRows: number;
  readonly numBlocks: number;
  /** Tensor parallelism cuts the input, and so the columns of A; else its rows. */
  readonly isRowParallel: boolean;
}

function placements(config: MegatronConfig, numRanks: number): ReadonlyMap<string, Placement> {
  const { numHeads, numKvHeads, headDim, width } = config;
  const ffnWidth = config.ffnWidth / numRanks;
  const numGroups = numKvHeads / numRanks;
  const queries = (numHeads / numKvHeads) * headDim;
  const fused = (
    parts: readonly (readonly [string, number])[],
    { numBlocks = 1, isRowParallel = false }: { numBlocks?: number; isRowParallel?: boolean } = {},
  ): Placement => {
    let blockRows = 0;
    const targets = parts.map(([module, numRows]) => {
      blockRows += numRows;
      return { module, start: blockRows - numRows, numRows };
    });
    return { targets, blockRows, numBlocks, isRowParallel };
  };
  const isRowParallel = true;
  const [query, key, value] = ["q_proj", "k_proj", "v_proj"].map((name) => `self_attn.${name}`);
  const raised = [["mlp.up_proj", ffnWidth]] as const;
  const gated = [["mlp.gate_proj", ffnWidth], ...raised] as const;
  return new Map([
    [
      "lora_kqv_adapter",
      fused(
        [
          [query, queries],
          [key, headDim],
          [value, headDim],
        ],
        { numBlocks: numGroups },
      ),
    ],
    ["lora_unfused_kqv_adapter.q_adapter", fused([[query, numGroups * queries]])],
    ["lora_unfused_kqv_adapter.k_adapter", fused([[key, numGroups * headDim]])],
    ["lora_unfused_kqv_adapter.v_adapter", fused([[value, numGroups * headDim]])],
    ["lora_dense_attention_adapter", fused([["self_attn.o_proj", width / numRanks]], { isRowParallel })],
    // A rank has its rows of the gate above its rows of what is raised.
    ["lora_hto4h_adapter", fused(isGatedActivation(config.activation) ? gated : raised)],
    ["lora_unfused_hto4h_adapter.gate_adapter", fused([["mlp.gate_proj", ffnWidth]])],
    ["lora_unfused_hto4h_adapter.up_adapter", fused(raised)],
    ["lora_4htoh_adapter", fused([["mlp.down_proj", width / numRanks]], { isRowParallel })],
  ]);
}

const storedName =
  /^(?:(?:state_dict|model|module)\.)*(?:language_model\.)?(?:decoder|encoder)\.layers\.(\d+)\.(?:self_attention|mlp)\.adapter_layer\.(.+)\.(linear_in|linear_out)\.weight$/;

/** The tensors of all stages and ranks under PEFT's names. */
function loraTable(
  path: string,
  { stages, config }: { stages: readonly (readonly TensorSource[])[]; config: MegatronConfig },
): Map<string, StoredTensor> {
  if (huggingFaceFamily(config) === "gpt2") {
    throw new CheckpointError(component, `expected an adapter of a rotary model in ${path}, got one of GPT`, {
      hint: "its query, key and value are one module in other files",
    });
  }
  const known = placements(config, stages[0].length);
  const layersPerStage = config.numLayers / stages.length;
  const table = new Map<string, StoredTensor>();
  for (const [stage, ranks] of stages.entries()) {
    for (const name of ranks[0].names()) {
      const [, layerDigits, adapter = "", side] = storedName.exec(name) ?? [];
      const placement = known.get(adapter);
      if (placement === undefined) {
        throw new CheckpointError(component, `expected tensors of LoRA in ${path}, got '${name}'`, {
          hint: `known: ${[...known.keys()].join(", ")}`,
        });
      }
      const layer = `model.layers.${stage * layersPerStage + Number(layerDigits)}`;
      const tensors = ranks.map((rank) => partOfRank(rank, name));
      for (const target of placement.targets) {
        const module = `${layer}.${target.module}`;
        if (side === "linear_in")
          table.set(`${module}.lora_A.weight`, joined(tensors, placement.isRowParallel ? 1 : 0));
        else {
          const rows = tensors.map((tensor) => rowsOf(tensor, { target, placement, name, path }));
          table.set(`${module}.lora_B.weight`, joined(rows, 0));
        }
      }
    }
  }
  return table;
}

function partOfRank(source: TensorSource, name: string): StoredTensor {
  const readRange = (into: Uint8Array, byteOffset: number): void => source.readInto(name, into, byteOffset);
  return { ...source.info(name), readRange };
}

/** The target's rows of one rank's B. */
function rowsOf(
  { dtype, shape, readRange }: StoredTensor,
  { target, placement, name, path }: { target: Target; placement: Placement; name: string; path: string },
): StoredTensor {
  const { numBlocks, blockRows } = placement;
  const [numRows, rank] = shape;
  if (shape.length !== 2 || numRows !== numBlocks * blockRows) {
    throw new CheckpointError(
      component,
      `expected ${name} of ${numBlocks * blockRows} rows in ${path}, got (${shape.join(", ")})`,
      { hint: "its model_config.yaml is of another model" },
    );
  }
  const itemBytes = storedDtypeBytes[dtype];
  const box = { start: [0, target.start, 0], shape: [numBlocks, target.numRows, rank] };
  const rows = [numBlocks * target.numRows, rank];
  return {
    dtype,
    shape: rows,
    byteLength: storedByteLength(dtype, rows),
    readRange: cutBox({ shape: [numBlocks, blockRows, rank], itemBytes, readRange }, box),
  };
}

/** Matrices of all ranks beside each other along an axis. */
function joined(parts: readonly StoredTensor[], axis: 0 | 1): StoredTensor {
  const [{ dtype, shape }] = parts;
  const whole = shape.map((length, i) => (i === axis ? length * parts.length : length));
  const boxes = parts.map((part, index) => ({
    box: { start: shape.map((length, i) => (i === axis ? index * length : 0)), shape: part.shape },
    readRange: part.readRange,
  }));
  return {
    dtype,
    shape: whole,
    byteLength: storedByteLength(dtype, whole),
    readRange: joinBoxes(whole, storedDtypeBytes[dtype], boxes),
  };
}
