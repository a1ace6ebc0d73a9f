/**
 * The files that ranks of model parallelism wrote: NeMo 1's `mp_rank_TT/` and `tp_rank_TT_pp_rank_PPP/model_weights.ckpt`, Megatron-LM's
 * `mp_rank_TT[_PPP]/model_optim_rng.pt`. A grid with a hole in it is refused.
 */
import { CheckpointError } from "../../base/index.ts";
import type { FileTree } from "../fileTree.ts";
import { tensorTable } from "../source.ts";
import type { TensorSource } from "../source.ts";
import { PickleRecord } from "../torch/pickleValues.ts";
import { readTorchFile } from "../torch/torchFile.ts";
import { mergeMegatronRanks, throughTo } from "./canonical.ts";

const rankFile =
  /^(?:(?:mp_rank_(\d+)(?:_(\d+))?|tp_rank_(\d+)_pp_rank_(\d+))\/)?(?:model_weights\.ckpt|model_optim_rng\.pt|model_rng\.pt)$/;

export interface RankFile {
  readonly file: string;
  readonly tensorRank: number;
  readonly stage: number;
}

function rankFiles(tree: FileTree): RankFile[] {
  return tree.files.flatMap((file) => {
    const match = rankFile.exec(file);
    if (match === null) return [];
    const [, tensor, pipeline, nemoTensor, nemoPipeline] = match;
    return [
      { file, tensorRank: Number(tensor ?? nemoTensor ?? 0), stage: Number(pipeline ?? nemoPipeline ?? 0) },
    ];
  });
}

/** Whether the tree holds files of ranks. */
export function hasRankFiles(tree: FileTree): boolean {
  return rankFiles(tree).length > 0;
}

export interface RankCheckpoint {
  /** All ranks merged under one spelling (canonical.ts). */
  readonly weights: TensorSource;
  /** Megatron-LM's arguments, where the files carry them. */
  readonly args: Readonly<Record<string, unknown>> | undefined;
}

/** Opens and merges the files of all ranks. Throws CheckpointError, FileError. */
export function openRanks(
  tree: FileTree,
  { release = () => {} }: { release?: () => void } = {},
): RankCheckpoint {
  const files = rankFiles(tree);
  const opened: Disposable[] = [];
  const releaseAll = (): void => {
    for (const file of opened) file[Symbol.dispose]();
    release();
  };
  try {
    const grid = arrange(tree.path, files);
    let args: RankCheckpoint["args"];
    const stages = grid.map((ranks) =>
      ranks.map(({ file }) => {
        const bytes = tree.open(file);
        opened.push(bytes);
        const { tensors, root } = readTorchFile(bytes);
        checkVersion(bytes.path, root);
        args ??= plainFields(root instanceof Map ? root.get("args") : undefined);
        return tensors;
      }),
    );
    const merged = mergeMegatronRanks(tree.path, inLayerOrder(stages));
    const table = new Map([...merged.names()].map((name) => [name, throughTo(merged, name)]));
    return { weights: tensorTable(tree.path, table, { release: releaseAll }), args };
  } catch (error) {
    releaseAll();
    throw error;
  }
}

/** The files of ranks in a tree, as stages of tensor ranks. Throws CheckpointError for none, and for a grid with a hole in it. */
export function rankGrid(tree: FileTree): RankFile[][] {
  const files = rankFiles(tree);
  if (files.length > 0) return arrange(tree.path, files);
  throw new CheckpointError("megatron", `expected files of ranks in ${tree.path}, got none`, {
    hint: "there is neither model_weights.ckpt nor mp_rank_00",
  });
}

/** Files as stages of ranks, complete and in order. */
function arrange(path: string, files: readonly RankFile[]): RankFile[][] {
  const numStages = Math.max(...files.map(({ stage }) => stage)) + 1;
  const numRanks = Math.max(...files.map(({ tensorRank }) => tensorRank)) + 1;
  if (files.length !== numStages * numRanks) {
    throw new CheckpointError(
      "megatron",
      `expected the files of ${numRanks} tensor ranks times ${numStages} pipeline ranks in ${path}, got ${files.length}`,
      { hint: "copy the missing ranks, or remove files of another checkpoint" },
    );
  }
  return Array.from({ length: numStages }, (_, stage) =>
    files.filter((file) => file.stage === stage).toSorted((a, b) => a.tensorRank - b.tensorRank),
  );
}

/** Before version 2 Megatron-LM kept query, key and value rows in another order, which the file does not tell apart. */
function checkVersion(path: string, root: unknown): void {
  const version: unknown = root instanceof Map ? root.get("checkpoint_version") : undefined;
  if (typeof version === "number" && version < 2) {
    throw new CheckpointError(
      "megatron",
      `expected checkpoint_version 2 or later in ${path}, got ${version}`,
      {
        hint: "load and save it once with a recent Megatron-LM",
      },
    );
  }
}

/** The attributes of a namespace or dict as a plain object. */
export function plainFields(value: unknown): Record<string, unknown> | undefined {
  const fields: unknown = value instanceof PickleRecord ? value.fields : value;
  if (!(fields instanceof Map)) return undefined;
  return Object.fromEntries([...fields].map(([key, item]) => [String(key), item as unknown]));
}

/**
 * With an interleaved pipeline each rank holds several runs of layers ("model0", "model1", …): the first runs of all stages come first.
 */
function inLayerOrder(stages: readonly (readonly TensorSource[])[]): TensorSource[][] {
  const chunks = new Set(
    [...stages[0][0].names()].flatMap((name) => /^model(\d+)\./.exec(name)?.[1] ?? []).map(Number),
  );
  if (chunks.size === 0) return stages.map((ranks) => [...ranks]);
  return [...chunks]
    .toSorted((a, b) => a - b)
    .flatMap((chunk) => stages.map((ranks) => ranks.map((rank) => underPrefix(rank, `model${chunk}.`))));
}

function underPrefix(source: TensorSource, prefix: string): TensorSource {
  const names = [...source.names()].filter((name) => name.startsWith(prefix));
  const table = new Map(names.map((name) => [name.slice(prefix.length), throughTo(source, name)]));
  return tensorTable(source.path, table);
}
